"""What a controller publishes, and when; what the next one knows of it."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.spec import Configuration
from orchestrator.controller import keeper
from orchestrator.controller.events import EventKind
from orchestrator.controller.loop import Controller
from orchestrator.controller.memory import Memory, store
from orchestrator.controller.traffic import silence_s
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, Hold
from orchestrator.pools.actuator import Replicas
from orchestrator.signals.engine import EngineMetrics
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import (
    CLOUD,
    HOME,
    REPORT,
    SMALL,
    Make,
    Run,
    changed,
    report,
    settle,
    told,
    until_it_bursts,
)


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


def test_a_disk_that_takes_nothing_stops_no_tick(run: Run, tmp_path: Path) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        draft = tmp_path / f"controller.json.{os.getpid()}.draft"
        draft.mkdir()
        for now_s in (101, 102):
            await controller.tick(now_s)
        assert controller.snapshot.created_at_s == 102
        draft.rmdir()
        await controller.tick(103)
        assert told(controller, EventKind.STATE) == [
            ("controller", "its memory is not written"),
            ("controller", "its memory is written again"),
        ]

    run(test)


def test_calls_of_clusters_and_engines_are_bounded_by_their_number_and_shown(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=1)
        cluster.metrics = dict.fromkeys((HOME, CLOUD), EngineMetrics(running=1, waiting=0))
        ticking = asyncio.create_task((controller := make(100, changed(tick_s=0.01))).run())
        async with asyncio.timeout(5):
            while controller.state()["last_tick"].get("calls") != 2 + 2:
                await asyncio.sleep(0.01)
        ticking.cancel()

    run(test)


@pytest.mark.usefixtures("cheap")
def test_who_does_not_lead_any_more_publishes_remembers_and_scales_nothing(
    run: Run, tmp_path: Path
) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        before = (tmp_path / "controller.json").read_bytes(), controller.snapshot
        cluster.leads = False
        await until_it_bursts(controller, 101)
        assert not cluster.scaled
        assert ((tmp_path / "controller.json").read_bytes(), controller.snapshot) == before

    run(test)


@pytest.mark.parametrize("gateways", [0, 1])
def test_a_drain_after_a_restart_waits_for_gateways_that_may_be_silent_and_no_longer(
    run: Run, tmp_path: Path, gateways: int
) -> None:
    draining = BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=1, reason="calm")
    bursts, targets = {"assistant": draining}, {CLOUD: 1}
    Memory(bursts=bursts, targets=targets, charged_to_s=99).write(tmp_path / "controller.json")

    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=1)
        cluster.metrics[CLOUD] = EngineMetrics(running=0, waiting=0)
        controller = make(100)
        bound_s = silence_s(SMALL.configuration)
        for now_s in (100, 101, 100 + bound_s):
            await controller.tick(now_s)
            await settle()
            if gateways:
                controller.exchange(report(controller.snapshot.version), now_s)
        assert not cluster.scaled
        await controller.tick(101 + bound_s)
        await settle()
        assert cluster.scaled == [(CLOUD, 0)]

    run(test)


@pytest.mark.usefixtures("cheap")
def test_a_trigger_does_not_last_while_nobody_looks(run: Run) -> None:
    patient = changed()
    raw = patient.configuration.model_dump(mode="json")
    raw["workloads"][0]["burst"]["sustained_s"] = 30
    patient = Catalogue(Configuration.model_validate(raw), "v2")

    async def phase_after(controller: Controller, *ticks_s: float) -> BurstPhase:
        for now_s in ticks_s:
            controller.exchange(report(home_gpu=30), now_s)
            await controller.tick(now_s)
        return controller.snapshot.bursts["assistant"].phase

    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.metrics[HOME] = EngineMetrics(running=4, waiting=30)
        first = make(100, patient)
        assert await phase_after(first, 100, 101, 110) is BurstPhase.HOME
        again = make(4000, patient)
        assert await phase_after(again, 4000, 4001) is BurstPhase.HOME, "an absence"
        assert await phase_after(again, 8000, 8001) is BurstPhase.HOME, "a machine that slept"
        assert await phase_after(again, 8010, 8025) is BurstPhase.BURSTING

    run(test)


def test_a_disk_that_hangs_stops_no_tick_and_gets_one_write_at_a_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, entered = threading.Event(), []

    def hanging(path: Path, text: str, wanted: Callable[[], bool]) -> None:
        entered.append(text)
        hangs.wait()
        store(path, text, wanted)

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        before = (tmp_path / "controller.json").read_bytes()
        monkeypatch.setattr(keeper, "LIMIT_S", 0.01)
        monkeypatch.setattr(keeper, "store", hanging)
        for now_s in (101, 102, 103):
            await controller.tick(now_s)
        assert controller.snapshot.created_at_s == 103
        assert len(entered) == 1
        with pytest.raises(OSError, match="earlier write"):
            await controller.hold("home-gpu", Hold.DRAINED)
        assert told(controller, EventKind.STATE) == [("controller", "its memory is not written")]
        monkeypatch.setattr(keeper, "LIMIT_S", 10)
        hangs.set()
        while ("controller", "its memory is written again") not in told(
            controller, EventKind.STATE
        ):
            assert (tmp_path / "controller.json").read_bytes() == before, "what came late"
            await asyncio.sleep(0.01)
            await controller.tick(104)

    run(test)
