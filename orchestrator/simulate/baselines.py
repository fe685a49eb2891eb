"""What others do about capacity, over the same interface: to compare with.

Where requests run is decided as ever; these say which pools take part, and how large they are.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from orchestrator.simulate.policies import CapacityPolicy

HPA_TOLERANCE = 0.1
HPA_DOWNSCALE_STABILIZATION_S = 300.0
HPA_SYNC_S = 15.0
"""Defaults of Kubernetes' HorizontalPodAutoscaler."""
WAITING_PER_REPLICA = 5.0
"""Threshold of the KEDA trigger on vLLM's waiting requests that its production stack documents."""
UTILIZATION = 0.8
SKYSERVE_UPSCALE_S = 300.0
SKYSERVE_DOWNSCALE_S = 1200.0
"""SkyServe's defaults for its autoscaler by the request rate."""
NOTHING = EndpointState()


@dataclass
class _Fixed:
    """Owned pools at their maximum; nothing is rented."""

    catalogue: Catalogue
    name: str = "static on-prem"

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        targets = {
            e: c.pool.max_replicas if c.pool.min_replicas else self._rented(c, seen, now_s)
            for e, c in self.catalogue.candidates.items()
        }
        return Plan(self._bursts(seen, now_s), targets, dict.fromkeys(targets, self.name), {})

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        return 0

    def _bursts(self, seen: Observation, now_s: float) -> dict[str, BurstState]:
        """Who may leave home goes to the pool that the rules name first, where it serves."""
        found = {}
        for workload in self.catalogue.configuration.workloads:
            pools = self.catalogue.burst_pools(workload.name)
            serving = [p for p in pools if self._serves(p, seen)]
            if serving:
                found[workload.name] = BurstState(
                    phase=BurstPhase.BURSTING, pool=serving[0], reason=self.name
                )
        return found

    def _serves(self, pool: str, seen: Observation) -> bool:
        return any(
            seen.endpoints.get(c.endpoint, NOTHING).ready_replicas
            for c in self.catalogue.by_pool[pool]
        )

    def _is_first(self, candidate: Candidate) -> bool:
        """Whether a workload bursts to its pool before all others."""
        return any(
            pools[0] == candidate.pool.name and candidate.model.name in w.models
            for w in self.catalogue.configuration.workloads
            if (pools := self.catalogue.burst_pools(w.name))
        )


@dataclass
class _Reactive(_Fixed):
    """Rented pools follow a metric as the HPA does: desired = ceil(replicas × metric / target)."""

    name: str = "HPA"
    _wanted: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _synced: dict[str, tuple[float, int]] = field(default_factory=dict)

    def _ratio(self, candidate: Candidate, state: EndpointState) -> float:
        """Metric over target, of replicas that serve."""
        raise NotImplementedError

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        if not self._is_first(candidate):
            return 0
        synced_s, target = self._synced.get(candidate.endpoint, (-HPA_SYNC_S, 0))
        if now_s - synced_s < HPA_SYNC_S:
            return target
        replicas = seen.standing.get(candidate.endpoint, 0)
        state = seen.endpoints.get(candidate.endpoint, NOTHING)
        desired = replicas
        if not state.ready_replicas:
            desired = max(1, replicas) if self._overflow(candidate, seen) else 0
        elif abs((ratio := self._ratio(candidate, state)) - 1) > HPA_TOLERANCE:
            desired = ceil(replicas * ratio)
        desired = min(desired, candidate.pool.max_replicas)
        # Never below what was wanted at any time of the window.
        wanted = self._wanted.setdefault(candidate.endpoint, deque())
        wanted.append((now_s, desired))
        while wanted[0][0] < now_s - HPA_DOWNSCALE_STABILIZATION_S:
            wanted.popleft()
        target = max(count for _, count in wanted)
        self._synced[candidate.endpoint] = (now_s, target)
        return target

    def _overflow(self, candidate: Candidate, seen: Observation) -> bool:
        """Whether requests wait at a home of those who may go there."""
        return any(
            seen.endpoints.get(c.endpoint, NOTHING).waiting
            + seen.endpoints.get(c.endpoint, NOTHING).queued
            for w in self.catalogue.configuration.workloads
            if candidate.pool.name in self.catalogue.burst_pools(w.name)
            for c in self.catalogue.home(w.name)
        )


@dataclass
class _OnQueue(_Reactive):
    name: str = "KEDA on queue"

    def _ratio(self, candidate: Candidate, state: EndpointState) -> float:
        waiting = state.waiting + state.queued
        # Without a queue the metric is 0; replicas that answer are kept.
        return max(waiting / state.ready_replicas / WAITING_PER_REPLICA, 1.0 * (state.running > 0))


@dataclass
class _OnUtilization(_Reactive):
    name: str = "HPA on utilization"

    def _ratio(self, candidate: Candidate, state: EndpointState) -> float:
        slots = state.ready_replicas * candidate.variant.max_num_seqs
        return (state.running + state.waiting) / slots / UTILIZATION


@dataclass
class _AllCloud(_OnUtilization):
    """Who may leave home always does; at home stays what must, at the pools' minimum."""

    name: str = "all cloud"

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        planned = super().plan(seen, version, now_s)
        for endpoint, candidate in self.catalogue.candidates.items():
            if candidate.pool.min_replicas:
                planned.targets[endpoint] = self._owned(candidate)
            elif self._is_first(candidate):
                planned.targets[endpoint] = max(1, planned.targets[endpoint])
        return planned

    def _owned(self, candidate: Candidate) -> int:
        stays = any(
            not self.catalogue.burst_pools(w.name) and candidate in self.catalogue.home(w.name)
            for w in self.catalogue.configuration.workloads
        )
        return candidate.pool.max_replicas if stays else candidate.pool.min_replicas


@dataclass
class _RequestRate(_Fixed):
    """SkyServe: replicas for the request rate, up and down after delays; spot with on-demand
    replicas while spot ones are missing."""

    name: str = "SkyServe"
    _since_s: dict[str, tuple[int, float]] = field(default_factory=dict)
    _target: dict[str, int] = field(default_factory=dict)

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        pool = candidate.pool
        is_fallback = pool.capacity_type == "on-demand" and not self._is_first(candidate)
        if not self._is_first(candidate) and not is_fallback:
            return 0
        if is_fallback:
            return self._missing_spot(candidate, seen)
        state = seen.endpoints.get(candidate.endpoint, NOTHING)
        home = [c for w in self._going(candidate) for c in self.catalogue.home(w)]
        demand = sum(seen.endpoints.get(c.endpoint, NOTHING).queued for c in home)
        demand += state.running + state.waiting + state.queued
        wanted = min(ceil(demand / candidate.variant.max_num_seqs), pool.max_replicas)
        return self._delayed(candidate.endpoint, wanted, now_s)

    def _going(self, candidate: Candidate) -> list[str]:
        return [
            w.name
            for w in self.catalogue.configuration.workloads
            if candidate.pool.name in self.catalogue.burst_pools(w.name)
            and candidate.model.name in w.models
        ]

    def _delayed(self, endpoint: str, wanted: int, now_s: float) -> int:
        target = self._target.get(endpoint, 0)
        direction = (wanted > target) - (wanted < target)
        before, since_s = self._since_s.get(endpoint, (0, now_s))
        if direction != before:
            since_s = now_s
        delay_s = SKYSERVE_UPSCALE_S if direction > 0 else SKYSERVE_DOWNSCALE_S
        if direction and now_s - since_s >= delay_s:
            target, direction = wanted, 0
        self._since_s[endpoint] = (direction, since_s)
        self._target[endpoint] = target
        return target

    def _missing_spot(self, fallback: Candidate, seen: Observation) -> int:
        missing = 0
        for workload in self._going(fallback):
            for pool in self.catalogue.burst_pools(workload)[:1]:
                for candidate in self.catalogue.by_pool[pool]:
                    if candidate.model is fallback.model and candidate.pool.capacity_type == "spot":
                        state = seen.endpoints.get(candidate.endpoint, NOTHING)
                        wanted = self._target.get(candidate.endpoint, 0)
                        missing = max(missing, wanted - state.ready_replicas)
        return min(missing, fallback.pool.max_replicas)


@dataclass
class _FailoverOnly(_Fixed):
    """One rented replica is always there, for when home fails altogether."""

    name: str = "failover on errors"

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        return 1 if self._is_first(candidate) else 0

    def _bursts(self, seen: Observation, now_s: float) -> dict[str, BurstState]:
        return {
            workload: state
            for workload, state in super()._bursts(seen, now_s).items()
            if not any(
                seen.endpoints.get(c.endpoint, NOTHING).ready_replicas
                for c in self.catalogue.home(workload)
            )
        }


BASELINES: dict[str, Callable[[Catalogue], CapacityPolicy]] = {
    "static": _Fixed,
    "all-cloud": _AllCloud,
    "keda-queue": _OnQueue,
    "hpa-utilization": _OnUtilization,
    "skyserve": _RequestRate,
    "failover": _FailoverOnly,
}
"""By the names that the command line knows."""
