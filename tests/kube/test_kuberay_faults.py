"""A Kubernetes API server that fails, hangs, forgets and is not heard."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.pools import kuberay, kubernetes_api, mirror
from orchestrator.pools.actuator import PoolError, Replicas
from orchestrator.pools.ray_service import wanted
from tests.kube.fault_server import Fault, FaultServer
from tests.kube.following import SEEN_S, following, only, replicas_are, run, seen
from tests.kube.operator import Operator
from tests.kube.worlds import candidates


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
