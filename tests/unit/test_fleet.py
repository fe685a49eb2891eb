"""What exists, what of it serves, and what is done again when it failed."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from orchestrator.capacity.provision import Progress
from orchestrator.controller import jobs
from orchestrator.controller.fleet import LOST_AFTER_S, SCALE_RETRY_S, Fleet
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
            fleet.set_targets({CLOUD: 1}, frozenset(), now_s)
            await settle()
        assert cluster.scaled == [(CLOUD, 1)] * 2

    run(test)
    told = [r.message for r in caplog.records if f"'scale {CLOUD}' failed" in r.message]
    assert len(told) == 2
    assert all("KeyError in" in message for message in told)


def test_what_serve_still_builds_is_left_alone_and_what_it_gave_up_is_asked_for_again(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {CLOUD: Replicas(deployed=False)}
        await fleet.observe(100)
        fleet.set_targets({CLOUD: 1}, frozenset(), 100)
        await settle()
        assert not cluster.scaled
        cluster.replicas = {CLOUD: Replicas(deployed=False, failed="no such model")}
        await fleet.observe(101)
        assert fleet.progress(CLOUD) == Progress(failed="no such model", abandoned=True)
        fleet.set_targets({CLOUD: 1}, frozenset({CLOUD}), 101)
        await settle()
        assert not cluster.scaled
        fleet.set_targets({CLOUD: 1}, frozenset(), 102)
        await settle()
        assert cluster.scaled == [(CLOUD, 1)]

    run(test)


def test_of_what_is_given_up_nothing_more_is_asked_for_but_it_can_be_taken_back(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {CLOUD: Replicas(starting=1)}
        await fleet.observe(100)
        for target in (2, 0):
            fleet.set_targets({CLOUD: target}, frozenset({CLOUD}), 100)
            await settle()
        assert cluster.scaled == [(CLOUD, 0)]

    run(test)


def test_one_endpoint_that_hangs_holds_up_no_other(run: Callable[[Test], None]) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.hanging = {HOME}
        await fleet.observe(100)
        fleet.set_targets({HOME: 1, CLOUD: 1}, frozenset(), 100)
        await settle()
        assert cluster.scaled == [(HOME, 1), (CLOUD, 1)]
        fleet.set_targets({HOME: 1, CLOUD: 1}, frozenset(), 101 + SCALE_RETRY_S)
        await settle()
        assert cluster.scaled == [(HOME, 1), (CLOUD, 1), (CLOUD, 1)]

    run(test)


def test_a_cluster_that_hangs_holds_up_one_tick_and_is_not_waited_for_again(
    run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.hanging = {"home"}
        cluster.replicas = {CLOUD: Replicas(ready=1)}
        monkeypatch.setattr(jobs, "PATIENCE_S", 0.01)
        await fleet.observe(100)
        assert fleet.replicas(CLOUD).ready == 1
        monkeypatch.setattr(jobs, "PATIENCE_S", 3600)
        for now_s in (101, 102):
            await fleet.observe(now_s)
        assert fleet.ready(CLOUD, 102) == 1

    run(test)


def test_replicas_that_are_leaving_are_asked_what_they_run_and_count_as_lost(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {HOME: Replicas(leaving=1)}
        cluster.metrics = {HOME: EngineMetrics(running=3, waiting=0)}
        await fleet.observe(100)
        fleet.set_targets({HOME: 1}, frozenset(), 100)
        await settle()
        assert fleet.metrics[HOME].running == 3
        assert fleet.ready(HOME, 100) == 0
        assert cluster.scaled == [(HOME, 1)], "a replacement is ordered"

    run(test)


def test_an_engine_that_says_nothing_is_unheard_until_it_counts_as_dead(
    run: Callable[[Test], None],
) -> None:
    async def test(fleet: Fleet, cluster: FakeCluster) -> None:
        cluster.replicas = {CLOUD: Replicas(ready=1)}
        cluster.metrics = {CLOUD: EngineMetrics(running=0, waiting=0)}
        await fleet.observe(100)
        assert not fleet.unheard(100, 600)
        cluster.metrics = {}
        await fleet.observe(101)
        assert fleet.unheard(101, 600) == {CLOUD}
        assert fleet.unheard(700, 600) == {CLOUD}
        assert not fleet.unheard(701, 600)

    run(test)
