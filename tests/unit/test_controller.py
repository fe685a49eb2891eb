"""What a controller publishes, and when; what the next one knows of it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from orchestrator.config.spec import Configuration
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import MAX_GAP_S, Controller
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, Hold
from orchestrator.pools.actuator import Replicas
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.report import GatewayReport
from tests.fake_pools import FakeCluster
from tests.worlds import small

SMALL = small()
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
REPORT = GatewayReport(gateway_id="g", config_version="v1", snapshot_version=0)
Make = Callable[..., Controller]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Make, FakeCluster], Awaitable[None]]], None]:
    cluster = FakeCluster(monkeypatch)
    cluster.replicas = {HOME: Replicas(ready=1)}

    async def inside(test: Callable[[Make, FakeCluster], Awaitable[None]]) -> None:
        async with aiohttp.ClientSession() as session:

            def make(now_s: float, catalogue: Catalogue = SMALL) -> Controller:
                fleet = Fleet(catalogue, session)
                return Controller(catalogue, fleet, tmp_path / "controller.json", now_s)

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


def cost(controller: Controller) -> float:
    usd: float = controller.state()["cost_usd"]["by_pool"].get("home-gpu", 0.0)
    return usd


def test_replicas_cost_money_while_no_controller_looks(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        await make(0).tick(0)
        again = make(1800)
        await again.tick(1800)
        assert cost(again) == pytest.approx(0.25)
        much_later = make(1800 + 100 * MAX_GAP_S)
        await much_later.tick(1800 + 100 * MAX_GAP_S)
        assert cost(much_later) == pytest.approx(0.25 + 0.5 * MAX_GAP_S / 3600)

    run(test)


def test_a_fleet_that_was_started_anew_costs_from_then_on_and_what_was_spent_stays_spent(
    run: Run, tmp_path: Path
) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(0)
        for now_s in (0, 3600):
            await first.tick(now_s)
        memory = Memory.read(tmp_path / "controller.json", fresh=True)
        memory.write(tmp_path / "controller.json")
        assert not memory.targets
        assert not memory.warm
        again = make(7200)
        await again.tick(7200)
        assert cost(again) == pytest.approx(0.5)
        assert again.snapshot.version > first.snapshot.version

    run(test)


def test_an_endpoint_that_somebody_else_runs_costs_what_is_held_of_it(run: Run) -> None:
    raw = SMALL.configuration.model_dump(mode="json")
    raw["clusters"][0] |= {"kind": "openai", "dashboard_url": None}
    raw["pools"][0] |= {"min_replicas": 2, "max_replicas": 2}
    catalogue = Catalogue(Configuration.model_validate(raw), "v2")

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(0, catalogue)
        for now_s in (0, 3600):
            await controller.tick(now_s)
        assert cost(controller) == pytest.approx(2 * 0.5)

    run(test)


def test_a_drain_that_lasts_is_logged_once(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draining = BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=1, reason="calm")
    Memory(bursts={"assistant": draining}, targets={CLOUD: 1}).write(tmp_path / "controller.json")

    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=1)
        cluster.metrics[CLOUD] = EngineMetrics(running=1, waiting=0)
        controller = make(100)
        for now_s in (100, 700, 701, 702):
            await controller.tick(now_s)
        assert "lasts longer" in controller.state()["bursts"]["assistant"]["reason"]

    run(test)
    assert [r.levelname for r in caplog.records if "still drains" in r.message] == ["WARNING"]


def test_a_pool_that_somebody_drains_stays_drained_over_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        first.hold("home-gpu", Hold.DRAINED)
        await first.tick(101)
        assert first.snapshot.holds == {"home-gpu": Hold.DRAINED}
        again = make(102)
        await again.tick(102)
        assert again.snapshot.holds == {"home-gpu": Hold.DRAINED}
        assert again.state()["pools"]["home-gpu"]["hold"] == "drained"
        again.hold("home-gpu", None)
        await again.tick(103)
        assert again.snapshot.holds == {}
        with pytest.raises(KeyError):
            again.hold("nowhere", Hold.LEAVING)

    run(test)
