"""What a controller publishes, and when; what the next one knows of it."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.config.spec import Configuration
from orchestrator.controller import keeper
from orchestrator.controller.clock import SteadyClock
from orchestrator.controller.events import EventKind
from orchestrator.controller.fleet import SCALE_RETRY_S, Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import MAX_GAP_S, Controller
from orchestrator.controller.memory import Memory, store
from orchestrator.controller.removed import EMPTY_S, SILENT_S
from orchestrator.controller.traffic import silence_s
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, Hold
from orchestrator.pools.actuator import Replicas, Unowned
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.report import EndpointReport, GatewayReport
from tests.fake_pools import FakeCluster, every_feed_says
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
                path = tmp_path / "controller.json"
                return Controller(catalogue, fleet, path, now_s, leads=lambda: cluster.leads)

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


def told(controller: Controller, kind: EventKind) -> list[tuple[str, str]]:
    """What the event log has of a kind: subjects, and what became of them."""
    return [(e.subject, e.what) for e in controller.events.after(0) if e.kind is kind]


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


def test_a_pool_that_somebody_drains_stays_drained_over_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.hold("home-gpu", Hold.DRAINED)
        await first.tick(101)
        assert first.snapshot.holds == {"home-gpu": Hold.DRAINED}
        again = make(102)
        await again.tick(102)
        assert again.snapshot.holds == {"home-gpu": Hold.DRAINED}
        assert again.state()["pools"]["home-gpu"]["hold"] == "drained"
        await again.hold("home-gpu", None)
        await again.tick(103)
        assert again.snapshot.holds == {}
        with pytest.raises(KeyError):
            await again.hold("nowhere", Hold.LEAVING)

    run(test)


def changed(**controller: object) -> Catalogue:
    """The small world under other settings of its controller."""
    raw = SMALL.configuration.model_dump(mode="json")
    raw["controller"] |= controller
    return Catalogue(Configuration.model_validate(raw), "v2")


ENDPOINTS = {"home_gpu": HOME, "old": "old/m"}


def report(version: int = 0, **inflight: int) -> GatewayReport:
    """Of a gateway with so many requests open, by place."""
    endpoints = {
        ENDPOINTS[pool]: EndpointReport(inflight=count, ttft_s=[9.0] * 20)
        for pool, count in inflight.items()
    }
    return GatewayReport(
        gateway_id="g", config_version="v1", snapshot_version=version, endpoints=endpoints
    )


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every feed says 2 USD."""
    every_feed_says(monkeypatch, 2.0)


async def until_it_bursts(controller: Controller, now_s: float) -> float:
    """Ticks under a load that home cannot hold; returns the time."""
    await controller.tick(now_s)
    for _ in range(8):
        now_s += 1
        controller.exchange(report(home_gpu=30), now_s)
        await controller.tick(now_s)
        await settle()
    return now_s


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


def test_a_hold_ends_by_itself_also_after_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.hold("home-gpu", Hold.DRAINED, until_s=110)
        await first.tick(101)
        again = make(109)
        await again.tick(109)
        assert again.snapshot.holds == {"home-gpu": Hold.DRAINED}
        assert again.state()["pools"]["home-gpu"]["hold_until_s"] == 110
        await again.tick(110)
        assert again.snapshot.holds == {}
        assert told(again, EventKind.HOLD)[-1] == ("home-gpu", "is held no longer")

    run(test)


@pytest.mark.usefixtures("cheap")
def test_a_word_on_a_burst_holds_for_its_time_and_over_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.override("assistant", Override(kind=OverrideKind.FORCE, until_s=150))
        await first.tick(101)
        assert first.snapshot.bursts["assistant"].phase is BurstPhase.BURSTING
        again = make(102)
        for now_s in (102, 149):
            await again.tick(now_s)
        assert again.snapshot.bursts["assistant"].phase is BurstPhase.BURSTING
        assert again.state()["bursts"]["assistant"]["override"]["until_s"] == 150
        for now_s in (150, 151, 155):
            await again.tick(now_s)
        assert again.snapshot.bursts["assistant"].phase is not BurstPhase.BURSTING

    run(test)


def test_a_word_on_a_burst_is_only_taken_where_the_rules_have_one(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        with pytest.raises(KeyError):
            await controller.override("nobody", Override(kind=OverrideKind.HOLD))
        with pytest.raises(ValueError, match="no burst"):
            await controller.override("records", Override(kind=OverrideKind.FORCE))
        with pytest.raises(ValueError, match="may burst to cloud-gpu, not 'home-gpu'"):
            await controller.override(
                "assistant", Override(kind=OverrideKind.FORCE, pool="home-gpu")
            )

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


def stray(ready: int) -> Unowned:
    return Unowned("old--m", "old/m", "http://127.0.0.1:9/pools/old/m", Replicas(ready=ready))


def test_what_has_no_place_in_the_rules_goes_when_nobody_uses_it(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.unowned = [stray(ready=1)]
        cluster.metrics = {"old/m": EngineMetrics(running=1, waiting=0)}
        controller = make(100)
        await controller.tick(100)
        told_with = controller.snapshot.version
        assert [u["name"] for u in controller.state()["unowned"]] == ["old--m"]
        steps = [
            ("a gateway may not know yet", report(told_with - 1), 0),
            ("a request is open there", report(told_with, old=1), 0),
            ("the engine runs something", report(told_with), 1),
        ]
        for now_s, (why, said, running) in enumerate(steps, 101):
            cluster.metrics = {"old/m": EngineMetrics(running=running, waiting=0)}
            controller.exchange(said, now_s)
            await controller.tick(now_s)
            await settle()
            assert not cluster.released, why
        cluster.metrics = {"old/m": EngineMetrics(running=0, waiting=0)}
        controller.exchange(report(told_with), 110)
        for now_s in (110, 111):
            await controller.tick(now_s)
            await settle()
        assert cluster.released == ["old--m"]
        assert told(controller, EventKind.RELEASE) == [("old/m", "release")]
        await controller.tick(112)
        assert controller.state()["unowned"] == []

    run(test)


def test_what_has_no_place_and_serves_nothing_goes_without_being_asked(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.unowned = [stray(ready=0)]
        controller = make(100)
        await controller.tick(100)
        controller.exchange(report(controller.snapshot.version), 101)
        await controller.tick(101)
        await settle()
        assert cluster.released == ["old--m"]

    run(test)


def test_an_engine_without_a_place_that_says_nothing_is_not_taken_for_idle(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.unowned = [stray(ready=1)]
        controller = make(100)
        await controller.tick(100)
        for now_s in (101, 700):
            controller.exchange(report(controller.snapshot.version), now_s)
            await controller.tick(now_s)
            await settle()
        assert not cluster.released
        controller.exchange(report(controller.snapshot.version), 701)
        await controller.tick(701)
        await settle()
        assert cluster.released, "silent for longer than a drain may last"

    run(test)


def test_replicas_that_nobody_remembers_ordering_are_taken_over(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=2)
        cluster.metrics[CLOUD] = EngineMetrics(running=1, waiting=0)
        controller = make(100)
        await controller.tick(100)
        adopted = told(controller, EventKind.ADOPT)
        assert (CLOUD, "2 replicas are taken over, 0 were expected") in adopted
        assert controller.state()["pools"]["cloud-gpu"]["replicas_target"] == 2
        cluster.metrics[CLOUD] = EngineMetrics(running=0, waiting=0)
        await controller.tick(101)
        await settle()
        assert cluster.scaled == [(CLOUD, 0)]
        assert len(told(controller, EventKind.ADOPT)) == len(adopted)

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


def without_the_cloud() -> Catalogue:
    raw = SMALL.configuration.model_dump(mode="json")
    del raw["clusters"][1], raw["pools"][1], raw["workloads"][0]["burst"]
    raw["models"][0]["variants"][0]["pools"] = ["home-gpu"]
    return Catalogue(Configuration.model_validate(raw), "v2")


LEFT = Unowned("cloud-gpu--m-fp16", CLOUD, "http://127.0.0.1:9/pools/" + CLOUD, Replicas(ready=1))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("restarted", [False, True])
def test_a_cluster_that_the_rules_have_no_more_is_watched_charged_and_emptied(
    run: Run, tmp_path: Path, restarted: bool
) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas[CLOUD] = Replicas(ready=1)
        cluster.metrics[CLOUD] = EngineMetrics(running=1, waiting=0)
        controller = make(0)
        await controller.tick(0)
        cluster.unowned = [LEFT]
        if restarted:
            controller = make(1, without_the_cloud())
        else:
            controller.adopt(without_the_cloud())
        await controller.tick(1)
        assert [u["cluster"] for u in controller.state()["unowned"]] == ["away"]
        before_usd = controller.state()["cost_usd"]["by_pool"]["cloud-gpu"]
        await controller.tick(1801)
        spent_usd = controller.state()["cost_usd"]["by_pool"]["cloud-gpu"] - before_usd
        assert spent_usd == pytest.approx(2.0 / 2)
        assert not cluster.released, "it still runs something"
        cluster.metrics[CLOUD] = EngineMetrics(running=0, waiting=0)
        for now_s in (1802, 1803, 1804 + EMPTY_S, 1805 + EMPTY_S):
            await controller.tick(now_s)
            await settle()
        assert cluster.released == ["cloud-gpu--m-fp16"]
        assert told(controller, EventKind.CLUSTER) == [
            ("away", "is removed, and watched no longer")
        ]
        assert set(Memory.read(tmp_path / "controller.json").clusters) == {"home"}

    run(test)


def test_a_removed_cluster_that_says_nothing_is_remembered_for_a_day(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        await make(0).tick(0)
        cluster.answers = False
        controller = make(1, without_the_cloud())
        for now_s in (1, 20, 1 + SILENT_S):
            await controller.tick(now_s)
        assert "away" in controller.state()["clusters_lost"]
        await controller.tick(2 + SILENT_S)
        assert "away" not in controller.state()["clusters_lost"]

    run(test)


def test_replicas_without_a_known_price_are_told_and_counted(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.unowned = [stray(ready=2)]
        controller = make(0)
        for now_s in (0, 3600):
            await controller.tick(now_s)
        assert controller.state()["cost_usd"]["unpriced_replicas"] == 2
        assert "old" not in controller.state()["cost_usd"]["by_pool"]
        adopted = [e for e in controller.events.after(0) if e.subject == "old/m"]
        assert "no price" in adopted[0].reason

    run(test)


def test_replicas_beyond_a_variant_of_the_rules_cost_the_price_of_their_pool(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        cluster.replicas = {}
        cluster.unowned = [Unowned("x", "home-gpu/old", None, Replicas(starting=1))]
        controller = make(0)
        for now_s in (0, 3600):
            await controller.tick(now_s)
        assert cost(controller) == pytest.approx(0.5)

    run(test)


def test_a_cluster_that_has_another_name_in_the_rules_is_no_other_cluster(run: Run) -> None:
    raw = SMALL.configuration.model_dump(mode="json")
    raw["clusters"][1]["name"] = raw["pools"][1]["cluster"] = "renamed"
    renamed = Catalogue(Configuration.model_validate(raw), "v2")

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(0)
        await controller.tick(0)
        cluster.unowned = [LEFT]
        controller.adopt(renamed)
        await controller.tick(1)
        assert controller.state()["unowned"] == []

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


def test_a_word_that_cannot_be_written_is_refused_and_does_not_hold(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "t")

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        asked = {
            "/v1/pools/home-gpu/hold": {"hold": "drained"},
            "/v1/bursts/assistant": {"override": "hold"},
        }
        headers = {"authorization": "Bearer t"}
        async with TestClient(TestServer(application(lambda: controller))) as client:
            draft = tmp_path / f"controller.json.{os.getpid()}.draft"
            draft.mkdir()
            for path, body in asked.items():
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status == 503
                assert "cannot be written: Is a directory" in await answer.text()
            await controller.tick(101)
            assert controller.snapshot.holds == {}
            assert controller.state()["bursts"]["assistant"]["override"] is None
            draft.rmdir()
            for path, body in asked.items():
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status == 200
            kept = Memory.read(tmp_path / "controller.json")
            assert set(kept.holds) == {"home-gpu"}
            assert set(kept.overrides) == {"assistant"}

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
