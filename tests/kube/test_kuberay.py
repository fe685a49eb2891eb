"""Pools in a Kubernetes cluster, against a real API server. Tests play the operator."""

import asyncio
import threading
import time
from typing import Any

import pytest

from orchestrator.pools.actuator import PoolError, Replicas
from orchestrator.pools.ray_service import MANAGER, wanted
from tests.kube.following import following, only, replicas_are, run, seen
from tests.kube.operator import GROUP, VERSION, Operator
from tests.kube.worlds import candidates


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
            told = await seen(pools, world, lambda o: o.replicas[chat.endpoint].abandoned)
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
