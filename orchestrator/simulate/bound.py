"""What no policy can cost less than in a simulation, where it serves as many in time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.simulate.oracle import Oracle, consult
from orchestrator.simulate.oracle_case import ROUNDING, Case, case_of, end_s
from orchestrator.simulate.run import Arrivals, Setting
from orchestrator.simulate.tally import HOUR_S

SHORTEST_BUCKET_S = 20.0
MOST_BUCKETS = 2000
"""Shorter buckets hardly tell more, and more of them take minutes."""


@dataclass(frozen=True)
class Bound:
    usd: float
    """Nothing is below it, whatever the schedule's figures."""
    is_attainable: bool
    """False: nobody serves as many in time; then it is for the most that can be."""
    status: str
    usd_by_pool: dict[str, float]
    """Of a schedule that comes to it; so are the next two."""
    gpu_hours_by_pool: dict[str, float]
    attained: dict[str, float]
    """By workload, of all that arrive."""
    asked: Mapping[str, float]
    """The attainment, by workload."""
    arrived: dict[str, int]
    bucket_s: float
    wall_s: float

    @property
    def slo_attainment(self) -> float:
        """Of all requests."""
        arrived = sum(self.arrived.values())
        return sum(self.attained[name] * count for name, count in self.arrived.items()) / arrived


def bound(
    setting: Setting,
    blocks: Iterable[Arrivals],
    attainment: Mapping[str, float],
    bucket_s: float | None = None,
    time_limit_s: float = math.inf,
) -> Bound:
    """`blocks` are gone through several times. `attainment`: of those that arrive, by workload.
    `bucket_s` is brought to whole ticks; None: by the length of the trace. ValueError where nothing
    arrives."""
    if bucket_s is None:
        bucket_s = max(SHORTEST_BUCKET_S, end_s(blocks) / MOST_BUCKETS)
    ticks = max(1, math.ceil(bucket_s / setting.tick_s))
    case = case_of(setting, blocks, attainment, ticks * setting.tick_s)
    told = consult(case.demand, case.supply, case.bucket_s, time_limit_s=time_limit_s)
    workloads = [workload.name for workload in setting.catalogue.configuration.workloads]
    attained = told.attained * (1 - case.hopeless)
    asked = np.array([attainment[name] for name in workloads])
    is_hopeless = (case.arrived > 0) & (asked > 1 - case.hopeless + ROUNDING)
    return Bound(
        usd=told.bound_usd,
        is_attainable=told.is_attainable and not is_hopeless.any(),
        status=told.status,
        usd_by_pool=_by_pool(case, told.usd_by_endpoint.tolist()),
        gpu_hours_by_pool=_by_pool(case, _gpu_hours(case, told)),
        attained=dict(zip(workloads, attained.tolist(), strict=True)),
        asked=dict(attainment),
        arrived=dict(zip(workloads, case.arrived.tolist(), strict=True)),
        bucket_s=case.bucket_s,
        wall_s=told.wall_s,
    )


def _gpu_hours(case: Case, told: Oracle) -> list[float]:
    hours: list[float] = (told.replicas.sum(axis=1) * case.gpus * case.bucket_s / HOUR_S).tolist()
    return hours


def _by_pool(case: Case, by_endpoint: Sequence[float]) -> dict[str, float]:
    found = dict.fromkeys(case.pools, 0.0)
    for pool, value in zip(case.pools, by_endpoint, strict=True):
        found[pool] += value
    return found
