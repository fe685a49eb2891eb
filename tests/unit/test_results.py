"""The results table: what it takes of the company, and how it judges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.policy.catalogue import Catalogue
from tests.benchmarks.results.market import ENERGY, MARKETS, SUPPLY, energy, supply
from tests.benchmarks.results.page import page
from tests.benchmarks.results.policies import ABLATED
from tests.benchmarks.results.row import Row, company, verdict
from tests.benchmarks.results.traces import TRACES

DATA = Path("../shared/data")


def ran(usd: float, attainment: float, reversals_per_hour: float = 0.0) -> dict[str, Any]:
    return {
        "cost_usd": {"total": usd},
        "slo_attainment": attainment,
        "reversals_per_hour": reversals_per_hour,
        "residency_violations": 0,
    }


def test_the_planner_is_compared_with_the_cheapest_that_serves_as_many() -> None:
    policies = {
        "planner": ran(12, 0.95, 2.0),
        "cheap": ran(5, 0.9),
        "equal": ran(15, 0.951),
        "dear": ran(30, 1.0),
    }
    told = verdict(policies, 10)
    assert told["cheapest_equal"] == "equal"
    assert told["planner_over_cheapest_equal"] == pytest.approx(0.8)
    assert told["planner_over_bound"] == pytest.approx(1.2)
    assert told["reversals_per_hour"] == 2


def test_nearly_all_is_enough_to_be_compared_with_a_planner_that_serves_all() -> None:
    told = verdict({"planner": ran(12, 1.0), "other": ran(10, 0.99)}, 10)
    assert told["cheapest_equal"] == "other"
    assert verdict({"planner": ran(1, 0.9), "x": ran(1, 0.8)}, 1)["cheapest_equal"] is None


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_a_row_takes_of_the_company_what_its_workloads_ask_for(trace: Any) -> None:
    catalogue = Catalogue(company(trace.shares, trace.owned), "")
    assert set(catalogue.workloads) == set(trace.shares)
    kinds = sorted(pool.capacity_type for pool in catalogue.pools.values())
    assert kinds == ["on-demand", "reserved", "spot"]
    owned = [pool for pool in catalogue.pools.values() if pool.capacity_type == "reserved"]
    assert [(p.min_replicas, p.max_replicas) for p in owned] == [(trace.owned, trace.owned)]
    for name in catalogue.workloads:
        assert catalogue.home(name)
    assert any(not catalogue.burst_pools(name) for name in catalogue.workloads)


def test_a_company_without_spot_rents_on_demand() -> None:
    (without,) = [contender for contender in ABLATED if contender.name == "without spot"]
    catalogue = Catalogue(without.change(company(TRACES[0].shares, 2)), "")
    assert catalogue.burst_pools("assistant") == ("ondemand-h100",)
    assert "spot-h100" not in catalogue.pools


@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.name)
def test_rented_pools_have_a_price_from_the_beginning(market: Any) -> None:
    if not (DATA / market.file).exists():
        pytest.skip(f"{DATA / market.file} is not there")
    for duration_s in (2000.0, 9 * 86_400.0):
        rented = market.rented(DATA / market.file, duration_s)
        assert set(rented) == {"spot", "on-demand"}
        for series in rented.values():
            assert series.times_s[0] == 0
            assert (np.diff(series.times_s) > 0).all()
            assert min(series.values) > 0


def test_owned_hours_and_spot_supply_are_as_recorded() -> None:
    for name in (ENERGY, SUPPLY):
        if not (DATA / name).exists():
            pytest.skip(f"{DATA / name} is not there")
    (owned,) = (p for p in company(TRACES[0].shares, 1).pools if p.price.onprem)
    assert owned.price.onprem is not None
    assert 1.1 < energy(DATA / ENERGY, owned.price.onprem, 86_400).at(0) < 1.5
    offered = supply(DATA / SUPPLY)
    assert set(offered.values) == {0, 1, 2, 3, 4, 5, 6}


def test_a_row_without_data_says_so_on_the_page() -> None:
    name = Row(TRACES[0], MARKETS[0]).name
    assert "is not there" in page({"rows": [], "skipped": [(name, "x.csv is not there")]})
