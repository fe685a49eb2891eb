"""What exists is paid for, whoever looks."""

from pathlib import Path

import pytest

from orchestrator.config.spec import Configuration
from orchestrator.controller.loop import MAX_GAP_S, Controller
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Replicas, Unowned
from orchestrator.signals.report import EndpointReport, GatewayReport
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import SMALL, Make, Run, stray


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


def test_tokens_are_paid_for_where_a_pool_charges_by_them_and_count_against_the_budget(
    run: Run,
) -> None:
    raw = SMALL.configuration.model_dump(mode="json")
    raw["clusters"][1] |= {"kind": "openai", "dashboard_url": None}
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}
    raw["pools"][1] |= {"min_replicas": 1, "max_replicas": 1, "price": {"tokens": prices}}
    raw["workloads"][0]["budget"] = {"usd_per_day": 10}
    catalogue = Catalogue(Configuration.model_validate(raw), "v2")

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(0, catalogue)
        await controller.tick(0)
        used = {"cloud-gpu/m-fp16": EndpointReport(tokens={"assistant": 500_000})}
        report = GatewayReport(
            gateway_id="g", config_version="v2", snapshot_version=1, endpoints=used
        )
        assert controller.exchange(report, 1) is not None
        await controller.tick(2)
        await controller.tick(4)
        assert controller.state()["cost_usd"]["by_pool"]["cloud-gpu"] == pytest.approx(2.0)
        assert controller.snapshot.budget_left_usd["assistant"] == pytest.approx(8.0)

    run(test)
