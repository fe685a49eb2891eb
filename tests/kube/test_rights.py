"""The rights that the controller asks for are enough for its pools, and each is needed."""

import asyncio
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from orchestrator.pools import kuberay
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.kubernetes_rights import IN_CLUSTER, IN_NAMESPACE
from tests.kube.following import following, only, replicas_are, run, seen
from tests.kube.operator import GROUP, VERSION, Operator
from tests.kube.worlds import KUBECONFIG_ENV, candidates

RULES = [("namespace", rule) for rule in IN_NAMESPACE] + [("cluster", rule) for rule in IN_CLUSTER]
EACH = [(number, verb) for number, (_, rule) in enumerate(RULES) for verb in rule["verbs"]]


class Account:
    """A service account with these rules and no others."""

    def __init__(self, admin: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.core = client.CoreV1Api(admin)
        self.rbac = client.RbacAuthorizationV1Api(admin)
        self.name = f"controller-{namespace}"
        self.core.create_namespaced_service_account(namespace, {"metadata": {"name": "controller"}})
        subject = {"kind": "ServiceAccount", "name": "controller", "namespace": namespace}
        named = {"metadata": {"name": self.name}, "rules": []}
        group = "rbac.authorization.k8s.io"
        self.rbac.create_namespaced_role(namespace, named)
        self.rbac.create_cluster_role(named)
        bound: dict[str, Any] = {"metadata": {"name": self.name}, "subjects": [subject]}
        self.rbac.create_namespaced_role_binding(
            namespace, bound | {"roleRef": {"apiGroup": group, "kind": "Role", "name": self.name}}
        )
        self.rbac.create_cluster_role_binding(
            bound | {"roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": self.name}}
        )

    def may(self, rules: list[tuple[str, dict[str, Any]]]) -> None:
        of = {
            place: [rule for at, rule in rules if at == place] for place in ("namespace", "cluster")
        }
        self.rbac.patch_namespaced_role(self.name, self.namespace, {"rules": of["namespace"]})
        self.rbac.patch_cluster_role(self.name, {"rules": of["cluster"]})

    def token(self) -> str:
        request = {"spec": {"expirationSeconds": 3600, "audiences": None}}
        answer = self.core.create_namespaced_service_account_token(
            "controller", self.namespace, request
        )
        return str(answer.status.token)

    def close(self) -> None:
        self.rbac.delete_cluster_role_binding(self.name)
        self.rbac.delete_cluster_role(self.name)


@pytest.fixture
def account(
    admin: client.ApiClient,
    namespace: str,
    kubeconfig: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Account]:
    account = Account(admin, namespace)
    described = yaml.safe_load(kubeconfig.read_text())
    for user in described["users"]:
        user["user"] = {"token": account.token()}
    path = tmp_path / "account.kubeconfig"
    path.write_text(yaml.safe_dump(described))
    monkeypatch.setenv(KUBECONFIG_ENV, str(path))
    yield account
    account.close()


async def live(operator: Operator) -> None:
    """Everything that the controller does in a cluster. Raises PoolError."""
    world = candidates(operator.namespace, chat=["gpu"], small=["gpu"])
    chat, small = world["gpu/chat"], world["gpu/small"]
    rules = {chat.endpoint: chat}
    async with following(chat) as pools:
        for candidate in world.values():
            await pools.scale(candidate, 1, None)
        await seen(pools, world, lambda o: len(o.replicas) == 2)
        for endpoint in world:
            operator.serve(endpoint)
        full = await seen(pools, world, replicas_are(chat.endpoint, ready=1))
        await pools.scale(chat, 2, full.replicas[chat.endpoint])
        await seen(pools, world, replicas_are(chat.endpoint, starting=1))
        # A RayCluster that lost its RayService, and a RayService that the rules have no more.
        operator.custom.delete_namespaced_custom_object(
            GROUP,
            VERSION,
            operator.namespace,
            "rayservices",
            small.service_name,
            propagation_policy="Orphan",
        )
        operator._finish("rayservices", small.service_name)
        told = await seen(pools, rules, lambda o: len(o.unowned) == 1)
        await pools.release(told.unowned[0].name)
        await pools.scale(chat, 0, None)
        operator.collect()
        await seen(pools, rules, lambda o: o == type(o)({}))


def test_the_rights_are_enough(account: Account, operator: Operator) -> None:
    account.may(RULES)
    run(live(operator))


@pytest.mark.parametrize(
    ("number", "verb"),
    EACH,
    ids=[f"{RULES[number][1]['resources'][0]}-{verb}" for number, verb in EACH],
)
def test_none_of_them_can_be_left_out(
    account: Account,
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    verb: str,
) -> None:
    monkeypatch.setattr(kuberay, "FIRST_LOOK_S", 1.0)
    monkeypatch.setattr(kuberay, "STALE_S", 1.0)
    rules = copy.deepcopy(RULES)
    rules[number][1]["verbs"].remove(verb)
    account.may(rules)

    async def scenario() -> None:
        await live(operator)
        # A watch that is refused leaves the first list to age.
        pools = kuberay.KubeRayPools(only(candidates(operator.namespace)).cluster)
        try:
            await pools.observe([])
            await asyncio.sleep(2 * kuberay.STALE_S)
            await pools.observe([])
        finally:
            await pools.close()

    with pytest.raises(PoolError, match="403"):
        run(scenario())
