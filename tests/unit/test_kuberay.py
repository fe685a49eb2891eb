"""Pools in Kubernetes, as far as no server is needed: names, objects, what is made of answers."""

import asyncio
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve.schema import ServeApplicationSchema

from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Replicas
from orchestrator.pools.kuberay import KubeRayPools, observed
from orchestrator.pools.kubernetes_api import KubernetesApi
from orchestrator.pools.pod_states import node, pod, ray_cluster, replicas_of, service
from orchestrator.pools.ray_service import ENDPOINT, label, labels, ray_service, wanted
from tests.configurations import company, problems
from tests.kube.worlds import CLUSTER, candidates

NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
LONG = "a" * 62


def chat() -> Candidate:
    return candidates("llm")["gpu/chat"]


def named(pool: str, variant: str) -> Candidate:
    return candidates("llm", **{variant: [pool]})[f"{pool}/{variant}"]


@given(NAMES, NAMES)
@example("0", "0-")
@example(LONG, LONG)
def test_a_service_has_a_name_that_kuberay_takes(pool: str, variant: str) -> None:
    name = named(pool, variant).service_name
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 47


@given(st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=2, unique=True))
@example([("a-b", "c"), ("a", "b-c")])
@example([("a.b", "c"), ("a-b", "c")])
@example([(LONG, "b"), (LONG, "c")])
def test_no_two_endpoints_share_a_name(pairs: list[tuple[str, str]]) -> None:
    first, second = (named(*pair).service_name for pair in pairs)
    assert first != second


@given(NAMES)
def test_a_label_has_a_value_that_kubernetes_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", label(name))


def test_another_number_of_replicas_restarts_none() -> None:
    versions = set()
    for count in (1, 2, 7):
        made = ray_service(chat(), count)
        (application,) = yaml.safe_load(made["spec"]["serveConfigV2"])["applications"]
        versions.add(get_app_code_version(ServeApplicationSchema.model_validate(application)))
        assert wanted(made) == count
    assert len(versions) == 1


def test_pods_run_without_rights_and_bear_the_labels_of_their_endpoint() -> None:
    cluster = ray_service(chat(), 1)["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        assert template["metadata"]["labels"] == labels(chat())
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_the_url_of_an_endpoint_names_its_service() -> None:
    name = chat().service_name
    assert chat().url == f"http://{name}-serve-svc.llm.svc:8000/pools/gpu/chat"


def a_service(count: int = 2, **over: Any) -> dict[str, Any]:
    made = ray_service(chat(), count)
    made["metadata"] |= {
        "uid": "u1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [
            {"manager": "orchestrator", "operation": "Apply", "time": "2026-01-01T01:00:00Z"},
            {"manager": "kuberay", "operation": "Update", "time": "2026-01-02T00:00:00Z"},
        ],
    } | over.pop("metadata", {})
    return made | over


def a_pod(name: str, *, node: str = "n", head: bool = False, **status: Any) -> dict[str, Any]:
    deleted = {"deletionTimestamp": "2026-01-01T03:00:00Z"} if status.pop("deleted", None) else {}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": "2026-01-01T02:00:00Z",
            "annotations": {ENDPOINT: "gpu/chat"},
            "labels": {"ray.io/node-type": "head" if head else "worker"},
            **deleted,
        },
        "spec": {"nodeName": node},
        "status": status,
    }


def ready(value: str = "True") -> list[dict[str, str]]:
    return [{"type": "Ready", "status": value}]


def made_of(
    of: dict[str, Any] | None, pods: list[dict[str, Any]], notices: dict[str, str] | None = None
) -> Replicas:
    return replicas_of(service(of) if of else None, [pod(p) for p in pods], notices or {})


ONE_HOUR_S = 3600
NEW_YEAR_S = 1767225600  # 2026-01-01T00:00:00Z


def test_what_was_asked_for_and_is_not_there_is_starting_since_it_was_asked_for() -> None:
    assert made_of(a_service(2), []) == Replicas(
        starting=2, pending_since_s=NEW_YEAR_S + ONE_HOUR_S
    )


def test_what_is_there_and_not_ready_is_starting_since_it_was_made() -> None:
    pods = [a_pod("a", conditions=ready()), a_pod("b", conditions=ready("False"))]
    assert made_of(a_service(2), pods) == Replicas(
        ready=1, starting=1, pending_since_s=NEW_YEAR_S + 2 * ONE_HOUR_S
    )


def test_pods_beyond_what_is_asked_for_are_stopping() -> None:
    pods = [a_pod(name, conditions=ready()) for name in "abc"]
    assert made_of(a_service(2), pods) == Replicas(ready=2, stopping=1)


def test_a_deleted_pod_is_stopping_and_its_successor_starting() -> None:
    pods = [a_pod("a", conditions=ready()), a_pod("b", conditions=ready(), deleted=True)]
    told = made_of(a_service(2), pods)
    assert (told.ready, told.starting, told.stopping, told.leaving) == (1, 1, 1, 0)


@pytest.mark.parametrize("deleted", [None, True])
def test_a_pod_that_is_disrupted_is_leaving(deleted: bool | None) -> None:
    gone = [*ready(), {"type": "DisruptionTarget", "status": "True"}]
    pods = [a_pod("a", conditions=ready()), a_pod("b", conditions=gone, deleted=deleted)]
    assert made_of(a_service(2), pods) == Replicas(ready=1, leaving=1)


def test_a_pod_on_a_node_that_will_be_lost_is_leaving() -> None:
    pods = [a_pod("a", conditions=ready()), a_pod("b", node="spot", conditions=ready())]
    assert made_of(a_service(2), pods, {"spot": "cordoned"}) == Replicas(ready=1, leaving=1)


def test_heads_and_ended_pods_are_no_replicas() -> None:
    pods = [a_pod("h", head=True, conditions=ready()), a_pod("a", phase="Failed")]
    told = made_of(a_service(1), pods)
    assert (told.ready, told.starting, told.stopping) == (0, 1, 0)
    assert told.failed == "pod a: Failed"


def test_a_service_that_is_taken_away_cannot_be_scaled() -> None:
    going = a_service(metadata={"deletionTimestamp": "2026-01-01T03:00:00Z"})
    for of in (going, None):
        assert made_of(of, [a_pod("a", conditions=ready())]) == Replicas(stopping=1, deployed=False)


@pytest.mark.parametrize(
    ("status", "failed", "abandoned"),
    [
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "Initializing"}]},
            None,
            False,
        ),
        (
            {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "False",
                        "reason": "ValidationFailed",
                        "message": "no",
                    }
                ]
            },
            "RayService: ValidationFailed: no",
            True,
        ),
        (
            {"activeServiceStatus": {"applicationStatuses": {"a": {"status": "DEPLOY_FAILED"}}}},
            "Serve: DEPLOY_FAILED",
            True,
        ),
        (
            {
                "pendingServiceStatus": {
                    "applicationStatuses": {"a": {"status": "UNHEALTHY", "message": "m"}}
                }
            },
            "Serve: UNHEALTHY: m",
            False,
        ),
    ],
)
def test_conditions_and_applications_tell_what_failed(
    status: dict[str, Any], failed: str | None, abandoned: bool
) -> None:
    told = made_of(a_service(1, status=status), [])
    assert (told.failed, told.abandoned) == (failed, abandoned)


def test_what_a_cluster_says_of_a_failure_is_one_line_of_text_of_bounded_length() -> None:
    message = "line\n\x1b[31mred\udfff " + "x" * 1000
    applications = {"a": {"status": "DEPLOY_FAILED", "message": message}}
    status = {"activeServiceStatus": {"applicationStatuses": applications}}
    told = made_of(a_service(1, status=status), [])
    assert told.failed is not None
    assert told.failed.startswith("Serve: DEPLOY_FAILED: line [31mred? xxx")
    assert len(told.failed) == 300


def test_pools_that_are_closed_close_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[KubernetesApi] = []
    monkeypatch.setattr(KubernetesApi, "close", lambda api: closed.append(api))
    asyncio.run(KubeRayPools(chat().cluster).close())
    assert len(closed) == 1


def test_an_endpoint_that_serves_is_not_given_up_for_a_failed_update() -> None:
    failed = {"activeServiceStatus": {"applicationStatuses": {"a": {"status": "DEPLOY_FAILED"}}}}
    told = made_of(a_service(1, status=failed), [a_pod("a", conditions=ready())])
    assert told.failed
    assert not told.abandoned


@pytest.mark.parametrize(
    ("item", "notice"),
    [
        ({}, None),
        ({"spec": {"unschedulable": True}}, "cordoned"),
        (
            {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]}},
            "ToBeDeletedByClusterAutoscaler",
        ),
        (
            {"spec": {"taints": [{"key": "kubernetes.azure.com/scalesetpriority"}]}},
            None,
        ),
        (
            {
                "spec": {
                    "taints": [
                        {"key": "kubernetes.azure.com/scalesetpriority"},
                        {"key": "node.kubernetes.io/unschedulable"},
                    ]
                }
            },
            "node.kubernetes.io/unschedulable",
        ),
        ({"spec": {"taints": [{"key": "nvidia.com/gpu"}]}}, None),
        (
            {"status": {"conditions": [{"type": "VMEventScheduled", "status": "True"}]}},
            "VMEventScheduled",
        ),
        ({"status": {"conditions": [{"type": "VMEventScheduled", "status": "False"}]}}, None),
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, None),
    ],
)
def test_nodes_that_will_be_lost_are_told_from_others(
    item: dict[str, Any], notice: str | None
) -> None:
    assert node({"metadata": {"name": "n"}} | item).notice == notice


def test_what_belongs_to_no_candidate_is_unowned() -> None:
    cluster = {"metadata": {"name": "c", "uid": "u2", "annotations": {ENDPOINT: "gpu/chat"}}}
    lost = ray_cluster(cluster)
    owner = {"ownerReferences": [{"kind": "RayService", "uid": "u1"}]}
    owned = ray_cluster({"metadata": cluster["metadata"] | owner})
    of = service(a_service(1))
    assert observed([chat()], [of], [owned], [], []).unowned == []
    assert [u.name for u in observed([], [of], [owned], [], []).unowned] == [
        f"rayservices/{chat().service_name}"
    ]
    assert [u.name for u in observed([chat()], [of], [lost], [], []).unowned] == ["rayclusters/c"]


ADDED = f"""\
clusters:
  - name: {CLUSTER}
    zone: frankfurt
    kind: kuberay
    url: http://{{service}}-serve-svc.llm.svc:8000
    kubernetes:
      namespace: llm
      image: registry.example/orchestrator:1
"""


KUBERNETES = ADDED[ADDED.index("    kubernetes:") :]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (KUBERNETES, "", "kuberay cluster 'rented' needs kubernetes"),
        ("kind: kuberay\n", "kind: ray\n", "ray cluster 'rented' takes no kubernetes"),
        ("{service}", "{name}", "only {service}, of a kuberay cluster, stands for something"),
        ("llm\n", "llm\n      context: c\n", "of which kubeconfig? give kubeconfig_env as well"),
        (
            "    kubernetes:\n",
            "    dashboard_url: http://127.0.0.1:1\n    kubernetes:\n",
            "kuberay cluster 'rented' takes no launch, no dashboard_url",
        ),
    ],
    ids=["no kubernetes", "another kind", "another name", "no kubeconfig", "dashboard"],
)
def test_a_cluster_that_cannot_be_is_refused(
    tmp_path: Any, before: str, after: str, message: str
) -> None:
    assert before in ADDED
    found = problems(company(tmp_path, text=ADDED.replace(before, after)))
    assert any(message in problem for problem in found), found
