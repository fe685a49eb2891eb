"""What is told, and how often."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.controller.clock import SteadyClock
from orchestrator.controller.events import EventKind
from orchestrator.controller.fleet import SCALE_RETRY_S
from orchestrator.controller.memory import Memory
from orchestrator.policy.snapshot import BurstPhase, BurstState
from orchestrator.pools.actuator import Replicas
from orchestrator.signals.engine import EngineMetrics
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import (
    CLOUD,
    Make,
    Run,
    changed,
    report,
    settle,
    told,
    until_it_bursts,
)


def test_a_drain_that_lasts_is_told_once(run: Run, tmp_path: Path) -> None:
    draining = BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=1, reason="calm")
    Memory(bursts={"assistant": draining}, targets={CLOUD: 1}).write(tmp_path / "controller.json")

    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=1)
        cluster.metrics[CLOUD] = EngineMetrics(running=1, waiting=0)
        controller = make(100)
        for now_s in (100, 700, 701, 702):
            await controller.tick(now_s)
        assert "lasts longer" in controller.state()["bursts"]["assistant"]["reason"]
        assert told(controller, EventKind.BURST) == [("assistant", "is still draining")]

    run(test)


@pytest.mark.usefixtures("cheap")
def test_every_action_is_told_once_with_its_reason(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await until_it_bursts(controller, 100)
        assert set(cluster.scaled) == {(CLOUD, 2)}
        scaled = [e for e in controller.events.after(0) if e.kind is EventKind.SCALE]
        assert [(e.subject, e.what) for e in scaled] == [(CLOUD, "scale to 2")]
        assert "TTFT p95" in scaled[0].reason
        assert told(controller, EventKind.BURST) == [("assistant", "bursting to cloud-gpu")]

    run(test)


@pytest.mark.usefixtures("cheap")
def test_a_scale_up_that_is_given_up_is_told_and_shown(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        now_s = await until_it_bursts(controller, 100)
        cluster.replicas[CLOUD] = Replicas(deployed=False, failed="no such model")
        for _ in range(SCALE_RETRY_S + 1):
            now_s += 1
            controller.exchange(report(home_gpu=30), now_s)
            await controller.tick(now_s)
        assert told(controller, EventKind.GIVE_UP) == [(CLOUD, "given up, for 60 s")]
        shown = controller.state()["pools"]["cloud-gpu"]["variants"]["m-fp16"]["given_up"]
        assert shown is None, "by the wall's clock that is long over"
        assert controller.state()["pools"]["cloud-gpu"]["replicas_target"] == 0

    run(test)


@pytest.mark.usefixtures("cheap")
def test_in_advisory_mode_it_says_what_it_would_do_and_does_nothing(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100, changed(mode="advisory"))
        await until_it_bursts(controller, 100)
        assert not cluster.scaled
        assert controller.snapshot.bursts["assistant"].phase is BurstPhase.HOME
        assert controller.state()["bursts"]["assistant"]["state"] == "bursting"
        burst = ("assistant", "advice: bursting to cloud-gpu")
        assert told(controller, EventKind.BURST) == [burst]
        assert told(controller, EventKind.SCALE) == [(CLOUD, "advice: scale to 2")]

    run(test)


def test_what_lasts_is_told_when_it_begins_and_when_it_ends(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        for now_s, answers in ((100, True), (101, False), (102, False), (103, True)):
            cluster.answers = answers
            await controller.tick(now_s)
            await settle()
        assert told(controller, EventKind.CLUSTER) == [
            (name, what)
            for what in ("cannot be observed", "is observed again")
            for name in ("away", "home")
        ]
        assert told(controller, EventKind.PRICE) == [
            ("cloud-gpu", "the newest price is not taken")
        ], "there is no such file"

    run(test)


def test_a_machine_whose_clock_is_set_is_told_once(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100, changed(tick_s=0.01))
        wall = [1000.0]
        controller.clock = SteadyClock(lambda: wall[0], lambda: 50.0)
        wall[0] += 3600
        ticking = asyncio.create_task(controller.run())
        async with asyncio.timeout(5):
            while controller.snapshot.created_at_s != 1000 or not told(controller, EventKind.CLOCK):
                await asyncio.sleep(0.01)
        ticking.cancel()
        what = "the machine's clock was set by +3600 s"
        assert told(controller, EventKind.CLOCK) == [("controller", what)]

    run(test)
