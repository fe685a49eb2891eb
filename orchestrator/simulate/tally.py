"""What a simulation came to: requests, latencies, replicas, dollars."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.policy.arrays import Floats, Ints
from orchestrator.policy.snapshot import BurstPhase, BurstState, Quote
from orchestrator.simulate.fleet_model import FleetModel
from orchestrator.simulate.tables import ITL, TTFT, quantile_s

if TYPE_CHECKING:
    from orchestrator.simulate.capacity_model import CapacityModel

HOUR_S = 3600.0
MOST_POINTS = 2000
"""Of each curve: what is longer keeps every second point."""
MOST_WINDOWS = 256
"""Of latencies, the same."""


@dataclass
class WorkloadTally:
    """All of one workload."""

    arrived: int
    served: int
    shed: int
    in_slo: int
    """Whose TTFT and mean ITL were within the objectives."""
    late_ttft: int
    late_itl: int
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    itl_p50_s: float | None
    itl_p95_s: float | None
    output_tokens: float
    by_zone: dict[str, int]
    """Requests that were sent there, those that were sent again counted again."""
    violations: int
    """Requests that were sent where their class or the workload's zones do not allow it: counted by
    the configuration, whatever `decide` thinks of it."""

    @property
    def slo_attainment(self) -> float:
        """The share of all that arrived."""
        return self.in_slo / self.arrived if self.arrived else 1.0


@dataclass
class Point:
    """A moment."""

    now_s: float
    replicas: list[int]
    """By pool: what is paid for."""
    bursting: list[str]
    """Workloads; so are the next."""
    draining: list[str]
    arrived: int
    """Since the beginning; so are the next two."""
    usd: float
    in_slo: int
    usd_per_gpu_hour: list[float | None]
    """By pool."""


@dataclass
class Tally:
    """Filled while a simulation runs."""

    model: FleetModel
    policy: str
    tick_s: float
    bursts: Mapping[str, BurstState] = field(default_factory=dict)
    usd_by_pool: dict[str, float] = field(default_factory=dict)
    gpu_hours_by_pool: dict[str, float] = field(default_factory=dict)
    idle_gpu_hours_by_pool: dict[str, float] = field(default_factory=dict)
    unpriced_gpu_hours_by_pool: dict[str, float] = field(default_factory=dict)
    """Without a price by the hour, and in no other figure."""
    usd_by_hour: list[dict[str, float]] = field(default_factory=list)
    """By zone, in each hour."""
    points: list[Point] = field(default_factory=list)
    bursts_by_workload: dict[str, int] = field(default_factory=dict)
    """How often each began to burst."""
    reversals: int = 0
    """Changes between bursting and not, of all workloads."""
    duration_s: float = 0
    workloads: dict[str, WorkloadTally] = field(default_factory=dict)
    replicas_started: int = 0
    replicas_lost: int = 0
    _every: int = 1
    _every_window: int = 1
    _ticks: int = 0
    _latencies: list[tuple[float, Ints]] = field(default_factory=list)
    """[TTFT or ITL, workload, bin] since the beginning, at the ends of windows."""

    def __post_init__(self) -> None:
        endpoints = len(self.model.candidates)
        self._replicas = np.zeros(endpoints)
        self._paid_gpu_s = np.zeros(endpoints)
        self._gpus = np.array([c.pool.gpus_per_replica for c in self.model.candidates])

    def tick(
        self,
        now_s: float,
        capacity: "CapacityModel",
        bursts: Mapping[str, BurstState],
        quotes: Mapping[str, Quote],
    ) -> None:
        for workload, state in bursts.items():
            before = self.bursts.get(workload, BurstState())
            was, bursting = (s.phase is BurstPhase.BURSTING for s in (before, state))
            if bursting and not was:
                self.bursts_by_workload[workload] = self.bursts_by_workload.get(workload, 0) + 1
            self.reversals += bursting != was
        self.bursts = bursts
        self.duration_s = now_s
        # Until this tick there was what the last one left.
        self._paid_gpu_s += self._replicas * self._gpus * self.tick_s
        self._replicas = capacity.paid_replicas()
        if self._ticks % self._every == 0:
            self._draw(now_s, self._replicas, quotes)
        if self._ticks % self._every_window == 0:
            self._end_window(now_s)
        self._ticks += 1

    def charge(self, pool: str, usd: float, gpu_hours: float, now_s: float) -> None:
        _increase(self.usd_by_pool, pool, usd)
        _increase(self.gpu_hours_by_pool, pool, gpu_hours)
        hour = int(max(now_s - self.tick_s, 0) // HOUR_S)
        while len(self.usd_by_hour) <= hour:
            self.usd_by_hour.append({})
        zone = self.model.catalogue.clusters[self.model.catalogue.pools[pool].cluster].zone
        _increase(self.usd_by_hour[hour], zone, usd)

    def close(self, capacity: "CapacityModel") -> "Tally":
        state = self.model.state
        zones = [c.zone.name for c in self.model.candidates]
        for number, workload in enumerate(self.model.workloads):
            by_zone: dict[str, int] = {}
            for zone, count in zip(zones, state.sent[number].tolist(), strict=True):
                if count:
                    by_zone[zone] = by_zone.get(zone, 0) + count
            row = state.groups[number]
            ttft, itl = state.latency[TTFT, number], state.latency[ITL, number]
            self.workloads[workload.name] = WorkloadTally(
                arrived=int(row["arrived"]),
                served=int(row["served"]),
                shed=int(row["shed"]),
                in_slo=int(row["in_slo"]),
                late_ttft=int(row["late_ttft"]),
                late_itl=int(row["late_itl"]),
                ttft_p50_s=quantile_s(ttft, 0.5),
                ttft_p95_s=quantile_s(ttft, 0.95),
                itl_p50_s=quantile_s(itl, 0.5),
                itl_p95_s=quantile_s(itl, 0.95),
                output_tokens=float(row["output_tokens"]),
                by_zone=by_zone,
                violations=self._violations(number),
            )
        self._count_gpu_hours()
        if self._latencies[-1][0] < self.duration_s:
            self._end_window(self.duration_s)
        self.replicas_started, self.replicas_lost = capacity.started, capacity.lost
        return self

    def p95_s(self, of: int, workload: int) -> list[tuple[float, float]]:
        """Of TTFT or ITL, at the ends of windows in which anything was counted."""
        found = []
        for (_, before), (now_s, after) in pairwise(self._latencies):
            quantile = quantile_s(after[of, workload] - before[of, workload], 0.95)
            if quantile is not None:
                found.append((now_s, quantile))
        return found

    def _count_gpu_hours(self) -> None:
        busy_gpu_s = self.model.busy_s() * self._gpus
        idle = np.maximum(self._paid_gpu_s - busy_gpu_s, 0) / HOUR_S
        paid = dict.fromkeys(self.model.catalogue.pools, 0.0)
        for candidate in self.model.candidates:
            pool = candidate.pool.name
            paid[pool] += float(self._paid_gpu_s[candidate.number]) / HOUR_S
            _increase(self.idle_gpu_hours_by_pool, pool, float(idle[candidate.number]))
        for pool, hours in paid.items():
            unpriced = hours - self.gpu_hours_by_pool.get(pool, 0.0)
            # What the order of adding leaves is nothing.
            self.unpriced_gpu_hours_by_pool[pool] = unpriced if unpriced > 1e-6 else 0.0

    def _end_window(self, now_s: float) -> None:
        self._latencies.append((now_s, self.model.state.latency.copy()))
        if len(self._latencies) > MOST_WINDOWS:
            self._latencies = self._latencies[::2]
            self._every_window *= 2

    def _violations(self, group: int) -> int:
        workload = self.model.workloads[group]
        return sum(
            int(self.model.state.sent[group, candidate.number])
            for candidate in self.model.candidates
            if candidate.zone.max_data_class < workload.data_class
            or candidate.zone.name not in workload.allowed_zones
        )

    def _draw(self, now_s: float, paid: Floats, quotes: Mapping[str, Quote]) -> None:
        catalogue, groups = self.model.catalogue, self.model.state.groups
        self.points.append(
            Point(
                now_s=now_s,
                replicas=[
                    int(sum(paid[c.number] for c in catalogue.by_pool[p])) for p in catalogue.pools
                ],
                bursting=[w for w, s in self.bursts.items() if s.phase is BurstPhase.BURSTING],
                draining=[w for w, s in self.bursts.items() if s.phase is BurstPhase.DRAINING],
                arrived=int(groups["arrived"].sum()),
                usd=sum(self.usd_by_pool.values()),
                in_slo=int(groups["in_slo"].sum()),
                usd_per_gpu_hour=[
                    quotes[p].usd_per_gpu_hour if p in quotes else None for p in catalogue.pools
                ],
            )
        )
        if len(self.points) > MOST_POINTS:
            self.points = self.points[::2]
            self._every *= 2


def _increase(amounts: dict[str, float], key: str, by: float) -> None:
    amounts[key] = amounts.get(key, 0.0) + by
