"""One row of the table: a trace at a market's prices, under every policy, and the bound."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.load import load
from orchestrator.config.spec import Configuration, OnPremPrice
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.bound import bound
from orchestrator.simulate.prices import Prices
from orchestrator.simulate.report import Simulated, bound_report, report_of
from orchestrator.simulate.run import Arrivals, Setting, simulate
from orchestrator.simulate.tables import ITL, TTFT, quantile_s
from tests.benchmarks.results.market import (
    ENERGY,
    OWNED,
    SPOT,
    START,
    SUPPLY,
    Market,
    energy,
    supply,
)
from tests.benchmarks.results.policies import PLANNER, Contender
from tests.benchmarks.results.traces import Trace

COMPANY = Path(__file__).parent / "company"
LONG_TICK_S, SHORT_TICK_S = 10.0, 1.0
FAIR = 0.99
"""The attainment that nobody has to exceed. `bound` is for what the planner reaches of each
workload up to it, `fair_bound` for it."""
Shown = Callable[[str, float | None], AbstractContextManager[Callable[[float], None]]]
"""A progress bar: of what, and of how much; None: nobody knows."""


@dataclass(frozen=True)
class Row:
    trace: Trace
    market: Market

    @property
    def name(self) -> str:
        return f"{self.trace.name}, {self.market.name}"

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.trace.files, self.market.file, ENERGY, SUPPLY)


def measure(
    row: Row, contenders: Sequence[Contender], data: Path, days: float, seed: int, shown: Shown
) -> dict[str, Any]:
    """Plain data. The same arguments give the same but for `wall_s`. Raises TraceError."""
    configuration = company(row.trace.shares, row.trace.owned)
    workloads = [workload.name for workload in configuration.workloads]
    blocks = row.trace.arrivals(data, workloads, days, seed)
    end_s = float(blocks[-1].arrival_s[-1])
    given = {
        **row.market.rented(data / row.market.file, end_s),
        OWNED: energy(data / ENERGY, _owned_price(configuration), end_s),
    }
    spot = supply(data / SUPPLY)

    def setting(of: Configuration) -> Setting:
        kinds = {pool.name: pool.capacity_type for pool in of.pools}
        return Setting(
            Catalogue(of, "company"),
            Prices(of, {name: given[kind] for name, kind in kinds.items()}, START.timestamp()),
            START.timestamp(),
            supply={name: spot for name, kind in kinds.items() if kind == SPOT},
            tick_s=LONG_TICK_S if row.trace.is_long else SHORT_TICK_S,
            seed=seed,
        )

    policies: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for contender in contenders:
        with shown(f"{row.name}: {contender.name}", end_s) as step:
            changed = setting(contender.change(configuration))
            policies[contender.name] = _run(contender, changed, blocks, step)
    of_planner = policies[PLANNER]["by_workload"]
    bounds = {
        "bound": {name: min(of["slo_attainment"], FAIR) for name, of in of_planner.items()},
        "fair_bound": dict.fromkeys(of_planner, FAIR),
    }
    for name, asked in bounds.items():
        with shown(f"{row.name}: {name}", None):
            least = bound(setting(configuration), blocks, asked)
        found[name] = bound_report(least, Catalogue(configuration, "company"))
    return {
        "row": row.name,
        "trace": row.trace.about,
        "market": row.market.about,
        "owned_replicas": row.trace.owned,
        "requests": sum(len(block.arrival_s) for block in blocks),
        "duration_s": end_s,
        "seed": seed,
        "policies": policies,
        **found,
        "verdict": verdict(policies, found["bound"]["cost_usd"]["total"]),
    }


def verdict(policies: Mapping[str, Any], bound_usd: float) -> dict[str, Any]:
    """The planner beside the bound, and beside the cheapest other that serves as many in time."""
    planner = policies[PLANNER]
    usd, enough = planner["cost_usd"]["total"], min(planner["slo_attainment"], FAIR)
    equal = [
        (of["cost_usd"]["total"], name)
        for name, of in policies.items()
        if name != PLANNER and of["slo_attainment"] >= enough
    ]
    cheapest_usd, cheapest = min(equal, default=(None, None))
    return {
        "planner_over_bound": usd / bound_usd,
        "cheapest_equal": cheapest,
        "planner_over_cheapest_equal": None if cheapest_usd is None else usd / cheapest_usd,
        "reversals_per_hour": planner["reversals_per_hour"],
        "residency_violations": sum(of["residency_violations"] for of in policies.values()),
    }


def _run(
    contender: Contender,
    setting: Setting,
    blocks: Sequence[Arrivals],
    step: Callable[[float], None],
) -> dict[str, Any]:
    began_s, shown_s = time.perf_counter(), 0.0

    def advance(now_s: float) -> None:
        nonlocal shown_s
        step(now_s - shown_s)
        shown_s = now_s

    tally = simulate(setting, blocks, contender.make(setting.catalogue), advance)
    report = report_of([Simulated(contender.name, tally, time.perf_counter() - began_s)], {})
    latency = tally.model.state.latency.sum(axis=1)
    report |= {"ttft_p95_s": quantile_s(latency[TTFT], 0.95)}
    report |= {"itl_p95_s": quantile_s(latency[ITL], 0.95)}
    del report["usd_by_hour"]
    return report


def company(workloads: Collection[str], owned: int) -> Configuration:
    """What these workloads take of it."""
    raw = load(COMPANY).configuration.model_dump(mode="json")
    raw["workloads"] = [w for w in raw["workloads"] if w["name"] in workloads]
    asked = {model for w in raw["workloads"] for model in w["models"]}
    raw["models"] = [model for model in raw["models"] if model["name"] in asked]
    named = {pool for model in raw["models"] for v in model["variants"] for pool in v["pools"]}
    raw["pools"] = [pool for pool in raw["pools"] if pool["name"] in named]
    for pool in raw["pools"]:
        if pool["capacity_type"] == OWNED:
            pool |= {"min_replicas": owned, "max_replicas": owned}
    return Configuration.model_validate(raw)


def _owned_price(configuration: Configuration) -> OnPremPrice:
    (price,) = (pool.price.onprem for pool in configuration.pools if pool.price.onprem)
    return price
