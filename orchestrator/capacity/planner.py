"""From observations to burst states and replica targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from orchestrator.capacity.burst import BurstSignals, step
from orchestrator.config.spec import Burst
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import (
    BurstPhase,
    BurstState,
    EndpointState,
    Quote,
)

NOTHING = EndpointState()
DELAYED = "the drain lasts longer than"


@dataclass(frozen=True, slots=True)
class Observation:
    """One tick's view of the world."""

    endpoints: Mapping[str, EndpointState]
    replicas: Mapping[str, int]
    """Replicas that exist in any state, by endpoint; absent: none."""
    quotes: Mapping[str, Quote]
    budget_left_usd: Mapping[str, float]
    oldest_snapshot: int
    """The oldest snapshot version on which any live gateway still decides."""


@dataclass(frozen=True, slots=True)
class Plan:
    bursts: dict[str, BurstState]
    targets: dict[str, int]
    """Replicas by endpoint."""


def plan(
    catalogue: Catalogue,
    observation: Observation,
    bursts: Mapping[str, BurstState],
    targets: Mapping[str, int],
    draining_published: Mapping[str, int],
    now_s: float,
) -> Plan:
    """The next burst states and replica targets.

    `draining_published` holds, by workload, the snapshot version that first told gateways to send
    no more: a pool counts as idle only when every gateway has it.
    """
    after: dict[str, BurstState] = {}
    for workload in catalogue.configuration.workloads:
        if workload.burst is None:
            continue
        before = bursts.get(workload.name, BurstState())
        signals = burst_signals(catalogue, observation, workload.name, workload.burst, bursts)
        state = step(workload, before, signals, now_s)
        limit_s = catalogue.configuration.controller.drain_timeout_s
        after[workload.name] = _with_its_delay(state, limit_s, now_s)
    for name, before in bursts.items():
        # The rules have no such burst any more: what it has drains all the same.
        if (
            name not in after
            and before.pool is not None
            and not _released(catalogue, observation, before.pool)
        ):
            after[name] = before

    wanted = {
        endpoint: candidate.pool.min_replicas
        for endpoint, candidate in catalogue.candidates.items()
    }
    for name, state in after.items():
        if state.phase is BurstPhase.BURSTING and state.pool is not None:
            candidate = burst_candidate(catalogue, name, state.pool)
            if candidate is None:
                continue
            needed = _replicas_needed(catalogue, observation, name, candidate)
            # Growth only: what a burst has is given back by its drain, under no live stream.
            held = min(targets.get(candidate.endpoint, 0), candidate.pool.max_replicas)
            wanted[candidate.endpoint] = max(wanted[candidate.endpoint], needed, held)
        elif state.phase is BurstPhase.DRAINING and state.pool is not None:
            published = draining_published.get(name)
            told = published is not None and observation.oldest_snapshot >= published
            for candidate in catalogue.by_pool[state.pool]:
                if not told or busy(observation, candidate.endpoint):
                    wanted[candidate.endpoint] = max(
                        wanted[candidate.endpoint], targets.get(candidate.endpoint, 0)
                    )
    return Plan(after, wanted)


def _with_its_delay(state: BurstState, limit_s: float, now_s: float) -> BurstState:
    """A drain that lasts longer than it should says so in its reason; it is never forced."""
    long = state.phase is BurstPhase.DRAINING and now_s - state.since_s > limit_s
    if not long or DELAYED in state.reason:
        return state
    return state.model_copy(update={"reason": f"{state.reason}; {DELAYED} {limit_s:g} s"})


def busy(observation: Observation, endpoint: str) -> bool:
    """Whether a request is open there, by any gateway's or the engine's own count."""
    state = observation.endpoints.get(endpoint, NOTHING)
    return sum(state.inflight.values()) + state.running + state.waiting > 0


def burst_candidate(catalogue: Catalogue, workload: str, pool: str) -> Candidate | None:
    """The variant that a workload's burst deploys on a pool: the best one of its models. None when
    the pool runs nothing that the workload may use."""
    spec = catalogue.workloads[workload]
    fitting = [
        candidate
        for model in spec.models
        for candidate in catalogue.selection(workload, model, spec.data_class, False).candidates
        if candidate.pool.name == pool
    ]
    return max(fitting, key=lambda c: (c.variant.quality, c.endpoint), default=None)


def burst_signals(
    catalogue: Catalogue,
    observation: Observation,
    workload: str,
    burst: Burst,
    bursts: Mapping[str, BurstState],
) -> BurstSignals:
    pool = bursts.get(workload, BurstState()).pool
    home = catalogue.home(workload)
    states = [observation.endpoints.get(c.endpoint, NOTHING) for c in home]
    p95s = [s.ttft_p95_s for s in states if s.ttft_p95_s is not None]
    away = [c.endpoint for pool in burst.pools for c in catalogue.by_pool[pool]]
    return BurstSignals(
        ttft_p95_s=max(p95s, default=None),
        waiting=sum(s.waiting + s.queued for s in states),
        demand=sum(_open(observation, c.endpoint) for c in home)
        + sum(_open(observation, e) for e in away),
        home_replicas=sum(s.ready_replicas for s in states),
        home_slots=_slots(home, observation),
        quotes={p: observation.quotes[p] for p in burst.pools if p in observation.quotes},
        usd_per_million_tokens={
            p: candidate.usd_per_million_tokens(observation.quotes.get(p)) if candidate else None
            for p in burst.pools
            for candidate in [burst_candidate(catalogue, workload, p)]
        },
        budget_left_usd=observation.budget_left_usd.get(workload),
        burst_pool_released=pool is None
        or _kept_by_another(bursts, workload, pool)
        or _released(catalogue, observation, pool),
    )


def _released(catalogue: Catalogue, observation: Observation, pool: str) -> bool:
    """Whether a burst holds nothing there any more."""
    return not any(
        busy(observation, c.endpoint)
        or observation.replicas.get(c.endpoint, 0) > c.pool.min_replicas
        for c in catalogue.by_pool[pool]
    )


def _kept_by_another(bursts: Mapping[str, BurstState], workload: str, pool: str) -> bool:
    return any(
        name != workload and state.pool == pool and state.phase is BurstPhase.BURSTING
        for name, state in bursts.items()
    )


def _open(observation: Observation, endpoint: str) -> int:
    """Requests that it has, or would have if it could take them."""
    state = observation.endpoints.get(endpoint, NOTHING)
    return max(sum(state.inflight.values()), state.running + state.waiting) + state.queued


def _slots(candidates: list[Candidate], observation: Observation) -> int:
    return sum(
        observation.endpoints.get(c.endpoint, NOTHING).ready_replicas * c.variant.max_num_seqs
        for c in candidates
    )


def _replicas_needed(
    catalogue: Catalogue, observation: Observation, workload: str, candidate: Candidate
) -> int:
    """Replicas that hold what home cannot: at least one, at most what the pool may have."""
    home = catalogue.home(workload)
    demand = sum(_open(observation, c.endpoint) for c in home) + _open(
        observation, candidate.endpoint
    )
    overflow = demand - _slots(home, observation)
    needed = ceil(overflow / candidate.variant.max_num_seqs)
    return max(1, min(needed, candidate.pool.max_replicas))
