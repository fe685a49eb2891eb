"""What exists, what of it serves, and what is done again when it failed."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from orchestrator.controller.fleet import DEPLOY_RETRY_S, LOST_AFTER_S, SCALE_RETRY_S, Fleet
from orchestrator.pools.actuator import Replicas
from orchestrator.signals.engine import EngineMetrics
from tests.fake_pools import FakeCluster
from tests.worlds import small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
Test = Callable[[Fleet, FakeCluster], Awaitable[None]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Test], None]:
    cluster = FakeCluster(monkeypatch)

    async def inside(test: Test) -> None:
        async with aiohttp.ClientSession() as session:
            fleet = Fleet(small(), session)
            await test(fleet, cluster)
            await fleet.stop()

    return lambda test: asyncio.run(inside(test))


async def settle() -> None:
    """Lets the jobs that were started end."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_replica_is_ready_when_it_has_answered(run: Callable[[Test], None]) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {HOME: Replicas(ready=1)}
        await fleet.observe(100)
        assert fleet.ready(HOME, 100) == 0
        await settle()
        assert fleet.ready(HOME, 100) == 1
        assert cluster.warmed_up == [HOME]

    run(test)


def test_the_fleet_is_known_when_all_clusters_were_seen_or_count_as_lost(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.answers = False
        assert not fleet.is_known(100)
        await fleet.observe(100)
        assert not fleet.is_known(100 + LOST_AFTER_S)
        assert fleet.is_known(101 + LOST_AFTER_S)
        cluster.answers = True
        await fleet.observe(101)
        assert fleet.is_known(101)

    run(test)


def test_an_engine_that_is_gone_runs_nothing(run: Callable[[Test], None]) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {CLOUD: Replicas(ready=1)}
        cluster.metrics = {CLOUD: EngineMetrics(running=3, waiting=0)}
        await fleet.observe(100)
        assert fleet.metrics[CLOUD].running == 3
        cluster.replicas = {CLOUD: Replicas(stopping=1)}
        await fleet.observe(101)
        assert CLOUD not in fleet.metrics

    run(test)


def test_a_scaling_that_breaks_in_any_way_is_told_and_tried_again(
    run: Callable[[Test], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.scale_error = KeyError("deployments")
        await fleet.observe(100)
        for now_s in (100, 101, 100 + SCALE_RETRY_S):
            fleet.set_targets({CLOUD: 1}, now_s)
            await settle()
        assert cluster.scaled == [(CLOUD, 1)] * 2

    run(test)
    assert [r.message for r in caplog.records if r.exc_info] == ["'scale away' failed"] * 2


def test_a_deployment_that_serve_gave_up_is_asked_for_again_after_a_pause(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {CLOUD: Replicas(deployed=False)}
        await fleet.observe(100)
        fleet.set_targets({CLOUD: 1}, 100)
        await settle()
        assert not cluster.scaled, "Serve is still at it"
        cluster.replicas = {CLOUD: Replicas(deployed=False, failed="no such model")}
        await fleet.observe(101)
        for now_s in (101, 100 + DEPLOY_RETRY_S, 101 + DEPLOY_RETRY_S):
            fleet.set_targets({CLOUD: 1}, now_s)
            await settle()
        assert cluster.scaled == [(CLOUD, 1)] * 2

    run(test)
