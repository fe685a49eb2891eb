"""What others do about capacity, over the same interface: to compare with.

Where requests run is decided as ever; these say which pools take part, and how large they are.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from orchestrator.capacity.load import Load
from orchestrator.capacity.planner import Observation, Plan
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from orchestrator.simulate.policies import CapacityPolicy

HPA_TOLERANCE = 0.1
HPA_DOWNSCALE_STABILIZATION_S = 300.0
HPA_SYNC_S = 15.0
HPA_MOST_PODS, HPA_MOST_TIMES = 4, 2
"""Defaults of Kubernetes' HorizontalPodAutoscaler. At once it adds the greater of the two: so many
pods, or up to so many times those that there are."""
WAITING_PER_REPLICA = 5.0
"""Threshold of the KEDA trigger on vLLM's waiting requests that its production stack documents.
KEDA's own `cooldownPeriod` is as long as the HPA's stabilization."""
UTILIZATION = 0.8
SKYSERVE_WINDOW_S = 60.0
SKYSERVE_UPSCALE_S = 300.0
SKYSERVE_DOWNSCALE_S = 1200.0
"""SkyServe's defaults for its autoscaler by the request rate."""
NOTHING = EndpointState()


@dataclass
class _Fixed:
    """Owned pools at their maximum; nothing is rented."""

    catalogue: Catalogue
    name: str = "static on-prem"
    _ready: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How many served when last there were more of them, or none was on its way; and when."""

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        targets = {}
        for endpoint, candidate in self.catalogue.candidates.items():
            pool = candidate.pool
            if self._is_rented(pool.name):
                wanted = max(self._rented(candidate, seen, now_s), pool.min_replicas)
            else:
                wanted = self._owned(candidate)
            targets[endpoint] = self._tried_again(candidate, wanted, seen, now_s)
        return Plan(self._bursts(seen, now_s), targets, dict.fromkeys(targets, self.name), {})

    def _owned(self, candidate: Candidate) -> int:
        return candidate.pool.max_replicas if candidate.pool.min_replicas else 0

    def _is_rented(self, pool: str) -> bool:
        return any(pool in self.catalogue.burst_pools(name) for name in self.catalogue.workloads)

    def _tried_again(
        self, candidate: Candidate, wanted: int, seen: Observation, now_s: float
    ) -> int:
        """Those that do not come for long are given up for one look, and ordered anew."""
        endpoint = candidate.endpoint
        ready = seen.endpoints.get(endpoint, NOTHING).ready_replicas
        before, since_s = self._ready.get(endpoint, (ready, now_s))
        if ready > before or seen.standing.get(endpoint, 0) <= ready:
            since_s = now_s
        patience = self.catalogue.configuration.controller.provision_patience
        is_stuck = now_s - since_s > candidate.pool.provision_s * patience
        self._ready[endpoint] = (ready, now_s if is_stuck else since_s)
        return min(wanted, ready) if is_stuck else wanted

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
    """Rented pools follow a metric as the HPA does."""

    name: str = "HPA"
    _wanted: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _synced: dict[str, tuple[float, int]] = field(default_factory=dict)

    def _desired(self, candidate: Candidate, seen: Observation, standing: int) -> int:
        raise NotImplementedError

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        if not self._is_first(candidate):
            return 0
        synced_s, target = self._synced.get(candidate.endpoint, (-HPA_SYNC_S, 0))
        if now_s - synced_s < HPA_SYNC_S:
            return target
        standing = seen.standing.get(candidate.endpoint, 0)
        most = max(standing + HPA_MOST_PODS, standing * HPA_MOST_TIMES)
        desired = self._desired(candidate, seen, standing)
        desired = min(desired, most, candidate.pool.max_replicas)
        # Never below what was wanted at any time of the window.
        wanted = self._wanted.setdefault(candidate.endpoint, deque())
        wanted.append((now_s, desired))
        while wanted[0][0] < now_s - HPA_DOWNSCALE_STABILIZATION_S:
            wanted.popleft()
        target = max(count for _, count in wanted)
        self._synced[candidate.endpoint] = (now_s, target)
        return target

    def _waiting(self, candidate: Candidate, seen: Observation) -> int:
        """Requests that wait there, or at a home of those who may go there."""
        endpoints = {candidate.endpoint} | {
            c.endpoint
            for w in self.catalogue.configuration.workloads
            if candidate.pool.name in self.catalogue.burst_pools(w.name)
            for c in self.catalogue.home(w.name)
        }
        states = (seen.endpoints.get(endpoint, NOTHING) for endpoint in endpoints)
        return sum(state.waiting + state.queued for state in states)


@dataclass
class _OnQueue(_Reactive):
    """desired = ceil(waiting / threshold), down to the pool's minimum."""

    name: str = "KEDA on queue"

    def _desired(self, candidate: Candidate, seen: Observation, standing: int) -> int:
        return ceil(self._waiting(candidate, seen) / WAITING_PER_REPLICA)


@dataclass
class _OnUtilization(_Reactive):
    """desired = ceil(ready × utilization / target); from none it starts where requests wait."""

    name: str = "HPA on utilization"

    def _desired(self, candidate: Candidate, seen: Observation, standing: int) -> int:
        state = seen.endpoints.get(candidate.endpoint, NOTHING)
        ready = state.ready_replicas
        if not ready:
            return max(1, standing) if self._waiting(candidate, seen) else 0
        busy = (state.running + state.waiting) / candidate.variant.max_num_seqs / UTILIZATION
        if abs(busy / ready - 1) <= HPA_TOLERANCE:
            return standing
        # Those that are on their way count as idle: what they will take is not ordered twice.
        if busy > ready and busy / max(standing, ready) - 1 <= HPA_TOLERANCE:
            return standing
        return ceil(busy)


@dataclass
class _AllCloud(_OnUtilization):
    """Who may leave home always does; at home stays what must, at the pools' minimum."""

    name: str = "all cloud"

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        return max(super()._rented(candidate, seen, now_s), 1 * self._is_first(candidate))

    def _owned(self, candidate: Candidate) -> int:
        stays = any(
            not self.catalogue.burst_pools(w.name) and candidate in self.catalogue.home(w.name)
            for w in self.catalogue.configuration.workloads
        )
        return candidate.pool.max_replicas if stays else candidate.pool.min_replicas


@dataclass
class _RequestRate(_Fixed):
    """SkyServe: replicas for the request rate of the last minute, owned ones first, up and down
    after delays. `target_qps_per_replica` is what one does of the mean request so far. On-demand
    replicas beside spot ones are its base fallback: the pool's minimum."""

    name: str = "SkyServe"
    _since_s: dict[str, tuple[int, float]] = field(default_factory=dict)
    _target: dict[str, int] = field(default_factory=dict)
    _recent: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _all: dict[str, Load] = field(default_factory=dict)
    """By model, as the next one is."""

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        for name, workload in self.catalogue.workloads.items():
            model, load = workload.models[0], seen.load.get(name, Load())
            so_far = self._all.get(model, Load())
            self._all[model] = Load(
                so_far.requests + load.requests,
                so_far.prompt_tokens + load.prompt_tokens,
                so_far.answered + load.answered,
                so_far.output_tokens + load.output_tokens,
            )
            recent = self._recent.setdefault(model, deque())
            recent.append((now_s, load.requests))
            while recent[0][0] <= now_s - SKYSERVE_WINDOW_S:
                recent.popleft()
        return super().plan(seen, version, now_s)

    def _rented(self, candidate: Candidate, seen: Observation, now_s: float) -> int:
        if not self._is_first(candidate):
            return 0
        model = candidate.model.name
        rps = sum(count for _, count in self._recent.get(model, ())) / SKYSERVE_WINDOW_S
        owned = sum(
            seen.endpoints.get(c.endpoint, NOTHING).ready_replicas
            for c in self.catalogue.by_model[model]
            if not self._is_rented(c.pool.name)
        )
        wanted = ceil(rps * self._work_s(candidate) / UTILIZATION) - owned
        wanted = min(max(wanted, 0), candidate.pool.max_replicas)
        return self._delayed(candidate.endpoint, wanted, now_s)

    def _work_s(self, candidate: Candidate) -> float:
        """What a replica takes for the mean request, its batches full."""
        of, performance = self._all.get(candidate.model.name, Load()), candidate.performance
        if performance is None or not of.requests or not of.answered:
            return 0.0
        return (
            of.prompt_tokens / of.requests / performance.prefill_tokens_per_s
            + of.output_tokens / of.answered / performance.decode_tokens_per_s
        )

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
