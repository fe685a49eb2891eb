"""A trace through the fleets of two versions of the rules, for `plan`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.cli.arrivals import arrivals, generating
from orchestrator.cli.simulate import PLANNER, START, moment_of
from orchestrator.cli.simulation import Inputs, run
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.decider import UnknownSpeed
from orchestrator.simulate.prices import SeriesError, read_series
from orchestrator.simulate.report import report_of
from orchestrator.simulate.run import Arrivals
from orchestrator.simulate.tables import NOBODY

SEED = 0
TICK_S = 1.0


class NotForeseen(Exception):
    """What is not known that a simulation needs, and the mend."""


def foresee(
    trace: Path, prices: Path | None, before: Catalogue, after: Catalogue
) -> dict[str, dict[str, Any]]:
    """The reports of both simulations, as `before` and `after`: of one trace, prices and seed, with
    the planner that ships. Raises NotForeseen, TraceError, and SeriesError for a file of prices
    that cannot be read."""
    start = moment_of(START)
    pools = {**before.pools, **after.pools}
    series = read_series(prices, "usd_per_gpu_hour", pools) if prices else {}
    names = list(dict.fromkeys([*before.workloads, *after.workloads]))
    mix = {n: 1.0 for side in (before, after) for n in generating(side.configuration)}
    if not mix:
        raise NotForeseen("no workload asks for text, and nothing else is simulated")
    blocks = list(arrivals(trace, names, mix, SEED))
    found = {}
    try:
        for side, catalogue in (("before", before), ("after", after)):
            mine = list(_known(blocks, names, catalogue))
            inputs = Inputs(catalogue, mine, series, {}, start.timestamp(), TICK_S, SEED)
            about = {"trace": str(trace), "start": start.isoformat(), "seed": SEED}
            found[side] = report_of([run(inputs, PLANNER, side)], about)
    except (UnknownSpeed, SeriesError) as error:
        raise NotForeseen(str(error)) from None
    return found


def _known(
    blocks: Sequence[Arrivals], names: Sequence[str], catalogue: Catalogue
) -> Iterator[Arrivals]:
    """Without requests of workloads that these rules do not have. `names`: by the numbers that the
    blocks have."""
    numbers = {name: number for number, name in enumerate(catalogue.workloads)}
    own = np.array([numbers.get(name, NOBODY) for name in names])
    for block in blocks:
        groups = own[block.group]
        kept = groups != NOBODY
        if kept.any():
            arrival_s, prompt_tokens, output_tokens = (c[kept] for c in block[:3])
            yield Arrivals(arrival_s, prompt_tokens, output_tokens, groups[kept])
