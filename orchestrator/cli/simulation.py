"""Simulations as the command line runs and shows them."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.measure import Measurement
from rich.table import Table

from orchestrator.cli.app import err, out
from orchestrator.cli.progress import progress
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate import summary
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.bound import Bound, bound
from orchestrator.simulate.policies import Planner
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.report import Simulated, policies_of
from orchestrator.simulate.run import Arrivals, Setting, simulate
from orchestrator.simulate.summary import Summary

MOST_COLUMNS = 500


@dataclass(frozen=True)
class Inputs:
    """What every policy is given."""

    catalogue: Catalogue
    blocks: Iterable[Arrivals]
    """Gone through by each."""
    prices: Mapping[str, Series]
    supply: Mapping[str, Series]
    epoch_s: float
    tick_s: float
    seed: int

    def setting(self) -> Setting:
        """Raises SeriesError."""
        return Setting(
            self.catalogue,
            Prices(self.catalogue.configuration, self.prices, self.epoch_s),
            self.epoch_s,
            supply=self.supply,
            tick_s=self.tick_s,
            seed=self.seed,
        )

    @cached_property
    def end_s(self) -> float:
        return max((float(b.arrival_s[-1]) for b in self.blocks if len(b.arrival_s)), default=0.0)


def run(inputs: Inputs, policy: str, name: str = "") -> Simulated:
    """`policy`: by its name, under which it is shown where it has no other one. Raises SeriesError,
    UnknownSpeed."""
    shown = name or policy
    setting = inputs.setting()
    makes = {"planner": Planner, **BASELINES}[policy]
    began_s, shown_s = time.perf_counter(), 0.0
    with progress(shown, inputs.end_s) as step:

        def advance(now_s: float) -> None:
            nonlocal shown_s
            step(now_s - shown_s)
            shown_s = now_s

        tally = simulate(setting, inputs.blocks, makes(inputs.catalogue), advance)
    return Simulated(shown, tally, time.perf_counter() - began_s)


def bounded(inputs: Inputs, attainment: float) -> Bound:
    """Of each workload's requests. Raises SeriesError."""
    workloads = inputs.catalogue.workloads
    with err.status("bound"):
        return bound(inputs.setting(), inputs.blocks, dict.fromkeys(workloads, attainment))


def show(report: dict[str, Any]) -> None:
    """The report's tables."""
    policies = policies_of(report)
    _print(_table(summary.policies(policies, report.get("bound"))))
    if len(policies) == 1:
        _print(_table(summary.workloads(policies[0])))
    _warn(policies, report.get("bound"))


def show_change(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Two reports on one trace, side by side."""
    _print(_table(summary.policies([before, after], differing="rules")))
    _print(_table(summary.changes(before, after)))
    _warn([before, after])


def _warn(reports: list[dict[str, Any]], bound: dict[str, Any] | None = None) -> None:
    for warning in summary.warnings(reports, bound):
        out.print(warning, style="yellow", highlight=False, soft_wrap=True)


def _print(table: Table) -> None:
    """Whole, however narrow the terminal is."""
    needed = Measurement.get(out, out.options.update(max_width=MOST_COLUMNS), table).minimum
    out.print(table, width=max(out.width, needed), crop=False)


def _table(of: Summary) -> Table:
    """Narrow: heads are folded, also at their hyphens; figures and names are not."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for number, name in enumerate(of.head):
        head = name.replace("-", "- ").replace("\N{SOFT HYPHEN}", "- ")
        words = [*head.split(), *(row[number] for row in of.rows)]
        if head == "zones":
            table.add_column(head)
        else:
            justify: JustifyMethod = "right" if number else "left"
            table.add_column(head, justify=justify, min_width=max(map(len, words)))
    for row in of.rows:
        table.add_row(*row)
    return table
