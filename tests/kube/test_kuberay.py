"""Pools in a Kubernetes cluster, against a real API server. Tests play the operator."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.policy.candidate import Candidate
from orchestrator.pools import kuberay, kubernetes_api, mirror
from orchestrator.pools.actuator import Fence, Observed, PoolError, Replicas
from orchestrator.pools.kuberay import KubeRayPools
from orchestrator.pools.ray_service import MANAGER, wanted
from tests.kube.fault_server import Fault, FaultServer
from tests.kube.operator import GROUP, VERSION, Operator
from tests.kube.worlds import candidates

SEEN_S = 10
"""How long a change may take to come through a watch."""


@asynccontextmanager
async def following(
    candidate: Candidate, fence: Fence = lambda: None
) -> AsyncIterator[KubeRayPools]:
    pools = KubeRayPools(candidate.cluster, fence=fence)
    try:
        yield pools
    finally:
        await pools.close()


async def seen(
    pools: KubeRayPools, of: dict[str, Candidate], told: Callable[[Observed], bool]
) -> Observed:
    """What is observed as soon as that is told of it."""
    deadline_s = time.monotonic() + SEEN_S
    while True:
        observed = await pools.observe(list(of.values()))
        if told(observed):
            return observed
        assert time.monotonic() < deadline_s, f"only {observed}"
        await asyncio.sleep(0.02)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def only(of: dict[str, Candidate]) -> Candidate:
    (candidate,) = of.values()
    return candidate


def replicas_are(endpoint: str, **numbers: int) -> Callable[[Observed], bool]:
    def told(observed: Observed) -> bool:
        found = observed.replicas.get(endpoint)
        return found is not None and all(getattr(found, k) == v for k, v in numbers.items())

    return told


@pytest.mark.usefixtures("in_force")
def test_an_endpoint_goes_from_none_to_some_and_back(operator: Operator) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            assert (await pools.observe([chat])).replicas == {}
            await pools.scale(chat, 2, None)
            begun = await seen(pools, world, replicas_are(chat.endpoint, starting=2, ready=0))
            assert begun.replicas[chat.endpoint].pending_since_s == pytest.approx(
                time.time(), abs=30
            )
            operator.serve(chat.endpoint)
            full = await seen(pools, world, replicas_are(chat.endpoint, ready=2, starting=0))
            existing = full.replicas[chat.endpoint]
            await pools.scale(chat, 1, existing)
            await seen(pools, world, replicas_are(chat.endpoint, ready=1, stopping=1))
            operator.serve(chat.endpoint)
            await seen(pools, world, replicas_are(chat.endpoint, ready=1, stopping=0))
            await pools.scale(chat, 0, existing)
            await seen(pools, world, lambda o: not o.replicas[chat.endpoint].deployed)
            with pytest.raises(PoolError, match="still being taken away"):
                await pools.scale(chat, 1, None)
            operator.collect()
            gone = await seen(pools, world, lambda o: chat.endpoint not in o.replicas)
            assert gone.unowned == []
            await pools.scale(chat, 1, None)
            assert wanted(operator.service(chat.service_name)) == 1

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_other_writers_of_the_object_neither_stop_a_scale_nor_lose_what_they_wrote(
    operator: Operator,
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)
    ended = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not ended.is_set():
            operator.custom.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                operator.namespace,
                "rayservices",
                chat.service_name,
                {"status": {"numServeEndpoints": written}},
            )
            operator.custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                operator.namespace,
                "rayservices",
                chat.service_name,
                {"metadata": {"annotations": {"example.com/written": str(written)}}},
            )
            written += 1

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            writer = threading.Thread(target=write)
            writer.start()
            try:
                for count in (2, 3, 4, 5, 4, 3):
                    await pools.scale(chat, count, Replicas())
            finally:
                ended.set()
                await asyncio.to_thread(writer.join)
            service = operator.service(chat.service_name)
            assert wanted(service) == 3
            assert written
            assert service["metadata"]["annotations"]["example.com/written"] == str(written - 1)
            assert service["status"]["numServeEndpoints"] == written - 1

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_a_field_of_ours_that_somebody_else_has_set_is_reported_and_left(
    operator: Operator,
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            edited = operator.service(chat.service_name)["spec"]["serveConfigV2"].replace(
                '"num_replicas": 1\n    }', '"num_replicas": 7\n    }'
            )
            operator.custom.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                operator.namespace,
                "rayservices",
                chat.service_name,
                {"spec": {"serveConfigV2": edited}},
                field_manager="somebody",
            )
            seen_by_us = await seen(pools, world, replicas_are(chat.endpoint, starting=7))
            with pytest.raises(PoolError, match=r"somebody.*serveConfigV2"):
                await pools.scale(chat, 2, seen_by_us.replicas[chat.endpoint])
            assert wanted(operator.service(chat.service_name)) == 7
            await pools.scale(chat, 0, None)
            operator.collect()
            await seen(pools, world, lambda o: o.replicas == {})

    run(scenario())


def once(matches: Callable[[str, str], bool], *faults: Fault) -> Callable[[str, str], Fault | None]:
    """These faults to the first requests that match, nothing to the others."""
    left = list(faults)
    choosing = threading.Lock()

    def decide(method: str, path: str) -> Fault | None:
        with choosing:
            return left.pop(0) if left and matches(method, path) else None

    return decide


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503),
        Fault(504, passed_on=True),
        Fault(429, headers=(("retry-after", "1"),)),
        Fault(409),
        Fault(None),
        Fault(None, passed_on=True),
        Fault(200, body=b'{"kind": "RaySer'),
        Fault(None, hang_s=5),
        Fault(None, passed_on=True, hang_s=5),
    ],
    ids=lambda f: f"{f.status or 'cut'}{'-late' if f.hang_s else ''}{'-done' * f.passed_on}",
)
def test_a_scale_outlives_a_server_that_fails_for_a_moment(
    operator: Operator, faults: FaultServer, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "READ_S", 0.5)
    monkeypatch.setattr(kuberay, "FIRST_PAUSE_S", 0.01)
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.observe([chat])
            faults.decide = once(lambda method, _: method == "PATCH", fault, fault)
            await pools.scale(chat, 3, None)
            assert wanted(operator.service(chat.service_name)) == 3
            await seen(pools, world, replicas_are(chat.endpoint, starting=3))
            faults.decide = once(lambda method, _: method == "DELETE", fault, fault)
            await pools.scale(chat, 0, Replicas(starting=3))
            operator.collect()
            assert operator.services() == []

    run(scenario())


def test_a_server_that_goes_on_failing_is_reported(
    operator: Operator, faults: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kuberay, "FIRST_PAUSE_S", 0.01)
    chat = only(candidates(operator.namespace))

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.observe([chat])
            faults.decide = lambda method, _: Fault(500) if method == "PATCH" else None
            with pytest.raises(PoolError, match="500: injected"):
                await pools.scale(chat, 1, None)
            assert faults.count("PATCH") == kuberay.TRIES

    run(scenario())


def test_who_leads_no_longer_asks_for_nothing_again(
    operator: Operator, faults: FaultServer
) -> None:
    chat = only(candidates(operator.namespace))
    leads = True

    def fence() -> None:
        if not leads:
            raise PoolError("another controller leads")

    def lose(method: str, _: str) -> Fault | None:
        nonlocal leads
        leads = method == "GET"
        return None if leads else Fault(500)

    async def scenario() -> None:
        async with following(chat, fence) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, {chat.endpoint: chat}, replicas_are(chat.endpoint, starting=1))
            for scaled_to, method in ((2, "PATCH"), (0, "DELETE")):
                before = faults.count(method)
                faults.decide = lose
                with pytest.raises(PoolError, match="another controller leads"):
                    await pools.scale(chat, scaled_to, None)
                assert faults.count(method) == before + 1
                faults.decide = lambda *_: None
                with pytest.raises(PoolError, match="another controller leads"):
                    await pools.scale(chat, scaled_to, None)
                assert faults.count(method) == before + 1
                nonlocal leads
                leads = True

    run(scenario())


def test_a_watch_that_breaks_is_resumed_where_it_was(
    operator: Operator, faults: FaultServer
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=1))
            for _ in range(3):
                faults.cut_watches()
                await asyncio.sleep(0.1)
            operator.serve(chat.endpoint)
            faults.cut_watches()
            await seen(pools, world, replicas_are(chat.endpoint, ready=1))
            assert [m.lists for m in pools._mirrors] == [1, 1, 1, 1]

    run(scenario())


GONE = b'{"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}'


@pytest.mark.parametrize(
    "fault",
    [Fault(410, body=GONE), Fault(200, body=b'{"type": "ERROR", "object": %s}\n' % GONE)],
    ids=["answer", "event"],
)
def test_a_version_that_the_server_has_forgotten_is_listed_anew(
    operator: Operator, faults: FaultServer, fault: Fault
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 2, None)
            operator.serve(chat.endpoint)
            await seen(pools, world, replicas_are(chat.endpoint, ready=2))
            faults.decide = lambda _, path: Fault(503) if "watch=true" in path else None
            faults.cut_watches()
            await asyncio.sleep(0.3)
            for pod in operator.pods():
                operator.remove_pod(pod.metadata.name)
            oldest = int(operator.core.list_namespaced_pod("default").metadata.resource_version)

            def forgotten(method: str, path: str) -> Fault | None:
                version = parse_qs(urlsplit(path).query).get("resourceVersion", [""])[0]
                return fault if version and int(version) < oldest else None

            faults.decide = forgotten
            await seen(pools, world, replicas_are(chat.endpoint, ready=0, starting=2))

    run(scenario())


def test_what_is_not_heard_is_not_known_until_it_is_again(
    operator: Operator, faults: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kuberay, "STALE_S", 3)
    monkeypatch.setattr(kubernetes_api, "WATCH_S", 1)
    monkeypatch.setattr(mirror, "LONGEST_PAUSE_S", 0.2)
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=1))
            faults.decide = lambda *_: Fault(None)
            faults.cut_watches()
            with pytest.raises(PoolError):
                while True:
                    await pools.observe([chat])
                    await asyncio.sleep(0.02)
            with pytest.raises(PoolError):
                await pools.scale(chat, 0, None)
            assert faults.count("DELETE") == 0
            faults.decide = lambda *_: None
            deadline_s = time.monotonic() + SEEN_S
            while time.monotonic() < deadline_s:
                with contextlib.suppress(PoolError):
                    found = await pools.observe([chat])
                    break
                await asyncio.sleep(0.05)
            assert found.replicas[chat.endpoint].starting == 1

    run(scenario())


def test_calls_do_not_grow_with_ticks(operator: Operator, faults: FaultServer) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=1))
            before = len(faults.requests)
            for _ in range(1000):
                await pools.observe([chat])
            # A watch of each kind may have come to its end.
            assert len(faults.requests) - before <= 2 * len(pools._mirrors)

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_what_becomes_of_pods_is_told(operator: Operator) -> None:
    world = candidates(operator.namespace)
    chat = only(world)
    node = f"node-{operator.namespace}"
    since = "2026-01-01T00:00:00Z"
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "lastTransitionTime": since,
    }

    def waiting(reason: str) -> dict[str, Any]:
        state = {"waiting": {"reason": reason, "message": "because"}}
        return {"phase": "Pending", "containerStatuses": [container(state)]}

    def container(state: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "name": "ray-worker",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 1,
            "state": state,
            "lastState": before or {},
        }

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 2, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=2))
            ready, other = operator.serve(chat.endpoint, node)
            operator.say(other, {"conditions": [{"type": "Ready", "status": "False"}]})
            told = await seen(pools, world, replicas_are(chat.endpoint, ready=1, starting=1))
            assert told.replicas[chat.endpoint].failed is None
            killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
            crashed = container({"waiting": {"reason": "CrashLoopBackOff"}}, killed)
            for status, reason in [
                ({"phase": "Pending", "conditions": [unschedulable]}, "Unschedulable"),
                (waiting("ImagePullBackOff"), "ImagePullBackOff: because"),
                (waiting("CrashLoopBackOff"), "CrashLoopBackOff"),
                ({"phase": "Running", "containerStatuses": [crashed]}, "OOMKilled"),
            ]:
                operator.say(other, status)
                told = await seen(
                    pools, world, lambda o, r=reason: r in (o.replicas[chat.endpoint].failed or "")
                )
                assert told.replicas[chat.endpoint].starting == 1
            operator.make_ready(other)
            told = await seen(pools, world, replicas_are(chat.endpoint, ready=2))
            assert told.replicas[chat.endpoint].failed is None
            # Evicted: it is on its way, and nobody here has asked for that.
            operator.say(
                ready,
                {"conditions": [{"type": "DisruptionTarget", "status": "True"}]},
            )
            await seen(pools, world, replicas_are(chat.endpoint, ready=1, leaving=1, starting=0))

    run(scenario())


def taint(key: str) -> dict[str, Any]:
    return {"taints": [{"key": key, "effect": "NoSchedule"}]}


@pytest.mark.usefixtures("in_force")
@pytest.mark.parametrize(
    "notice",
    [
        {"unschedulable": True},
        {
            "taints": [
                {"key": "cloud.google.com/impending-node-termination", "effect": "NoSchedule"}
            ]
        },
        {"taints": [{"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}]},
        {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]},
    ],
    ids=["cordon", "google", "aws", "karpenter"],
)
def test_what_stands_on_a_node_that_will_be_lost_is_leaving_and_replaced(
    operator: Operator, notice: dict[str, Any]
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)
    lost, kept = f"lost-{operator.namespace}", f"kept-{operator.namespace}"
    operator.make_node(lost, taint("example.com/of-no-consequence"))
    operator.make_node(kept)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 2, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=2))
            operator.serve(chat.endpoint, lost)
            await seen(pools, world, replicas_are(chat.endpoint, ready=2, leaving=0))
            operator.change_node(lost, {"spec": notice})
            told = await seen(pools, world, replicas_are(chat.endpoint, ready=0, leaving=2))
            existing = told.replicas[chat.endpoint]
            assert existing.standing == 0
            for _ in range(2):  # asked again, it is no more
                await pools.scale(chat, 2, existing)
                assert wanted(operator.service(chat.service_name)) == 4
            await seen(pools, world, replicas_are(chat.endpoint, starting=2, leaving=2))
            operator.serve(chat.endpoint, kept)
            await seen(pools, world, replicas_are(chat.endpoint, ready=2, leaving=2))
            for pod in operator.pods():
                if pod.spec.node_name == lost:
                    operator.remove_pod(pod.metadata.name)
            gone = await seen(pools, world, replicas_are(chat.endpoint, ready=2, leaving=0))
            await pools.scale(chat, 2, gone.replicas[chat.endpoint])
            await seen(pools, world, replicas_are(chat.endpoint, ready=2, starting=0))

    try:
        run(scenario())
    finally:
        for node in (lost, kept):
            operator.core.delete_node(node)


@pytest.mark.usefixtures("in_force")
def test_what_the_operator_has_given_up_is_made_anew(operator: Operator) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            first = operator.service(chat.service_name)["metadata"]["uid"]
            operator.custom.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                operator.namespace,
                "rayservices",
                chat.service_name,
                {
                    "status": {
                        "activeServiceStatus": {
                            "applicationStatuses": {
                                "gpu--chat": {"status": "DEPLOY_FAILED", "message": "no weights"}
                            }
                        }
                    }
                },
            )
            told = await seen(pools, world, lambda o: o.replicas[chat.endpoint].gave_up)
            assert "no weights" in (told.replicas[chat.endpoint].failed or "")
            await pools.scale(chat, 1, told.replicas[chat.endpoint])
            operator.collect()
            await seen(pools, world, lambda o: chat.endpoint not in o.replicas)
            await pools.scale(chat, 1, None)
            assert operator.service(chat.service_name)["metadata"]["uid"] != first

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_what_the_rules_have_no_more_is_unowned_and_released(operator: Operator) -> None:
    before = candidates(operator.namespace, chat=["gpu"], small=["gpu"])
    after = {k: v for k, v in before.items() if k == "gpu/chat"}
    small = before["gpu/small"]

    async def scenario() -> None:
        async with following(small) as pools:
            for candidate in before.values():
                await pools.scale(candidate, 1, None)
            await seen(pools, before, lambda o: len(o.replicas) == 2)
            operator.serve("gpu/small")
            told = await seen(pools, after, lambda o: any(u.replicas.ready for u in o.unowned))
            (unowned,) = told.unowned
            assert (unowned.endpoint, unowned.url) == ("gpu/small", small.url)
            for _ in range(2):
                await pools.release(unowned.name)
            operator.collect()
            await seen(pools, after, lambda o: o.unowned == [])
            assert [s["metadata"]["name"] for s in operator.services()] == [
                before["gpu/chat"].service_name
            ]

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_a_ray_cluster_that_lost_its_service_is_unowned_and_released(operator: Operator) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=1))
            operator.serve(chat.endpoint)
            await seen(pools, world, replicas_are(chat.endpoint, ready=1))
            operator.custom.delete_namespaced_custom_object(
                GROUP,
                VERSION,
                operator.namespace,
                "rayservices",
                chat.service_name,
                propagation_policy="Orphan",
            )
            operator._finish("rayservices", chat.service_name)
            told = await seen(pools, world, lambda o: o.unowned != [])
            assert told.unowned[0].endpoint == chat.endpoint
            await pools.release(told.unowned[0].name)
            operator.collect()
            await seen(pools, world, lambda o: o.unowned == [])

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_a_ray_cluster_whose_service_was_not_seen_yet_is_not_released(operator: Operator) -> None:
    world = candidates(operator.namespace)
    chat = only(world)

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
            await seen(pools, world, replicas_are(chat.endpoint, starting=1))
            cluster = operator.make_cluster(operator.service(chat.service_name))
            while not pools._clusters.objects():
                await asyncio.sleep(0.02)
            with pools._services._changing:
                pools._services._objects.clear()
            told = await pools.observe([chat])
            (unowned,) = told.unowned
            await pools.release(unowned.name)
            (left,) = operator.clusters()
            assert left["metadata"]["uid"] == cluster["metadata"]["uid"]
            assert "deletionTimestamp" not in left["metadata"]

    run(scenario())


@pytest.mark.usefixtures("in_force")
def test_everything_that_is_made_bears_our_name(operator: Operator) -> None:
    chat = only(candidates(operator.namespace))

    async def scenario() -> None:
        async with following(chat) as pools:
            await pools.scale(chat, 1, None)
        (service,) = operator.services()
        (fields,) = service["metadata"]["managedFields"]
        assert (fields["manager"], fields["operation"]) == (MANAGER, "Apply")
        # The server takes the pod as one, not only as part of something that it does not know.
        operator.serve(chat.endpoint)

    run(scenario())
