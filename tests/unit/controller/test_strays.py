"""What has no place in the rules: found, charged, released."""

from pathlib import Path

import pytest

from orchestrator.config.spec import Configuration
from orchestrator.controller.events import EventKind
from orchestrator.controller.memory import Memory
from orchestrator.controller.removed import EMPTY_S, SILENT_S
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Replicas, Unowned
from orchestrator.signals.engine import EngineMetrics
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import CLOUD, SMALL, Make, Run, report, settle, stray, told


def without_the_cloud() -> Catalogue:
    raw = SMALL.configuration.model_dump(mode="json")
    del raw["clusters"][1], raw["pools"][1], raw["workloads"][0]["burst"]
    raw["models"][0]["variants"][0]["pools"] = ["home-gpu"]
    return Catalogue(Configuration.model_validate(raw), "v2")


LEFT = Unowned("cloud-gpu--m-fp16", CLOUD, "http://127.0.0.1:9/pools/" + CLOUD, Replicas(ready=1))


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
