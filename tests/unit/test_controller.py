"""What a controller publishes, and when; what the next one knows of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from orchestrator.controller import fleet as fleet_module
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import Controller
from orchestrator.pools.ray import Replicas
from orchestrator.signals.report import GatewayReport
from tests.fake_pools import FakeCluster
from tests.worlds import small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
REPORT = GatewayReport(gateway_id="g", config_version="v1", snapshot_version=0)
Make = Callable[[float], Controller]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Make, FakeCluster], Awaitable[None]]], None]:
    cluster = FakeCluster()
    cluster.replicas = {HOME: Replicas(ready=1)}
    monkeypatch.setattr(fleet_module, "RayPools", cluster)

    async def inside(test: Callable[[Make, FakeCluster], Awaitable[None]]) -> None:
        async with aiohttp.ClientSession() as session:

            def make(now_s: float) -> Controller:
                return Controller(
                    small(), Fleet(small(), session), tmp_path / "controller.json", now_s
                )

            await test(make, cluster)

    return lambda test: asyncio.run(inside(test))


Run = Callable[[Callable[[Make, FakeCluster], Awaitable[None]]], None]


def test_nothing_is_published_before_the_fleet_is_known(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.answers = False
        controller = make(100)
        assert controller.exchange(REPORT, 100) is None
        await controller.tick(100)
        assert controller.exchange(REPORT, 100) is None
        assert controller.published() is None
        assert not cluster.scaled
        cluster.answers = True
        await controller.tick(101)
        assert controller.exchange(REPORT, 101) == controller.published() == controller.snapshot

    run(test)


def test_a_controller_that_comes_after_takes_warm_replicas_for_warm(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        for now_s in (100, 101):
            await first.tick(now_s)
            await asyncio.sleep(0.01)
        again = make(102)
        await again.tick(102)
        assert again.snapshot.endpoints[HOME].ready_replicas == 1
        assert cluster.warmed_up == [HOME]

    run(test)


def test_versions_rise_over_restarts_however_fast_the_ticks(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        for _ in range(20):
            await first.tick(100.5)
        again = make(101)
        await again.tick(101)
        assert again.snapshot.version > first.snapshot.version

    run(test)
