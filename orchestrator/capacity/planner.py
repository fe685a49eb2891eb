"""From observations to burst states and replica targets."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from orchestrator.capacity.burst import BurstSignals, step
from orchestrator.capacity.forecast import Forecast
from orchestrator.capacity.hold import Excess, kept
from orchestrator.capacity.load import Load
from orchestrator.capacity.override import Override
from orchestrator.capacity.provision import NOTHING_ORDERED, Progress, Provision, follow_up
from orchestrator.capacity.sizing import Sizing
from orchestrator.config.spec import Burst, Workload
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
    """The oldest snapshot version on which a gateway may still decide; 0: that is not known."""
    standing: Mapping[str, int] = field(default_factory=dict)
    """Replicas that are there to stay, serving or not, by endpoint."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """Of endpoints whose cluster has something to say of it."""
    unheard: frozenset[str] = frozenset()
    """Endpoints with replicas whose engine does not say what it runs."""
    held: frozenset[str] = frozenset()
    """Pools that take no request, by somebody's word."""
    load: Mapping[str, Load] = field(default_factory=dict)
    """By workload; absent: nothing arrived and nothing ended."""
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    """By workload, of those of which enough is known."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What earlier ticks have decided."""

    bursts: Mapping[str, BurstState] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    draining_published: Mapping[str, int] = field(default_factory=dict)
    """By workload, the snapshot version that first told gateways to send no more: a pool counts as
    idle only when every gateway has it."""
    provisions: Mapping[str, Provision] = field(default_factory=dict)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    """By workload."""
    excess: Mapping[str, Excess] = field(default_factory=dict)
    """Of endpoints that have more than they need."""


@dataclass(frozen=True, slots=True)
class Plan:
    bursts: dict[str, BurstState]
    targets: dict[str, int]
    """Replicas by endpoint."""
    reasons: dict[str, str]
    """Why each target is what it is."""
    provisions: dict[str, Provision]
    """Of endpoints with something to remember."""
    excess: dict[str, Excess] = field(default_factory=dict)


def plan(catalogue: Catalogue, observation: Observation, decided: Decided, now_s: float) -> Plan:
    """The next burst states and replica targets."""
    provisions = _provisions(catalogue, observation, decided, now_s)
    sizing = _sizing(catalogue, observation, decided, provisions, now_s)
    after = _bursts(catalogue, observation, decided, provisions, sizing, now_s)
    wanted, excess = _wanted(catalogue, observation, decided, after, sizing, now_s)
    for endpoint, candidate in catalogue.candidates.items():
        want = wanted[endpoint]
        if endpoint in provisions and provisions[endpoint].given_up(now_s):
            want.at_most(
                max(_ready(observation, endpoint), candidate.pool.min_replicas),
                f"given up: {provisions[endpoint].reason}",
            )
        # One replica of several leaves when its own streams have ended; the last one waits.
        if (not want.replicas or not want.is_sized) and busy(observation, endpoint):
            standing = observation.standing.get(endpoint, 0)
            want.at_least(
                max(decided.targets.get(endpoint, 0), standing), "requests are open there"
            )
        want.at_most(candidate.pool.max_replicas, "the pool has no more")
    return Plan(
        after,
        {endpoint: want.replicas for endpoint, want in wanted.items()},
        {endpoint: want.reason for endpoint, want in wanted.items()},
        {e: p for e, p in provisions.items() if p != NOTHING_ORDERED},
        excess,
    )


def _sizing(
    catalogue: Catalogue,
    observation: Observation,
    decided: Decided,
    provisions: Mapping[str, Provision],
    now_s: float,
) -> Sizing:
    limits = {}
    for endpoint, candidate in catalogue.candidates.items():
        if candidate.pool.name in observation.held:
            limits[endpoint] = 0
        elif provisions[endpoint].given_up(now_s):
            limits[endpoint] = _ready(observation, endpoint)
    return Sizing(
        catalogue,
        observation.forecasts,
        observation.endpoints,
        observation.quotes,
        limits,
        {w for w, state in decided.bursts.items() if state.phase is BurstPhase.BURSTING},
    )


def _bursts(
    catalogue: Catalogue,
    observation: Observation,
    decided: Decided,
    provisions: Mapping[str, Provision],
    sizing: Sizing,
    now_s: float,
) -> dict[str, BurstState]:
    after: dict[str, BurstState] = {}
    for workload in catalogue.configuration.workloads:
        if workload.burst is None:
            continue
        before = decided.bursts.get(workload.name, BurstState())
        signals = burst_signals(
            catalogue,
            observation,
            workload.name,
            workload.burst,
            decided.bursts,
        )
        override = decided.overrides.get(workload.name)
        signals = replace(
            signals,
            unavailable=_unavailable(catalogue, observation, workload.name, provisions, now_s),
            override=override if override is not None and override.holds(now_s) else None,
            needed=_needed(catalogue, sizing, workload, before),
        )
        state = step(workload, before, signals, now_s)
        limit_s = catalogue.configuration.controller.drain_timeout_s
        after[workload.name] = _with_its_delay(state, limit_s, now_s)
    for name, before in decided.bursts.items():
        # The rules have no such burst any more: what it has drains all the same.
        if (
            name not in after
            and before.pool is not None
            and not _released(catalogue, observation, name, before.pool)
        ):
            after[name] = before
    return after


def _needed(
    catalogue: Catalogue, sizing: Sizing, workload: Workload, state: BurstState
) -> int | None:
    """Of the pool that it bursts to, or else of the first that can give something."""
    assert workload.burst is not None
    needed = None
    for pool in [state.pool] if state.pool else workload.burst.pools:
        candidate = catalogue.burst_candidate(workload.name, pool)
        if candidate is not None:
            needed = sizing.rented_replicas([workload.name], candidate)
            if needed:
                break
    return needed


def _wanted(
    catalogue: Catalogue,
    observation: Observation,
    decided: Decided,
    after: Mapping[str, BurstState],
    sizing: Sizing,
    now_s: float,
) -> tuple[dict[str, "Wanted"], dict[str, Excess]]:
    """What the pools should have, before what limits it."""
    wanted = {
        endpoint: Wanted(candidate.pool.min_replicas, "the pool's minimum")
        for endpoint, candidate in catalogue.candidates.items()
    }
    excess: dict[str, Excess] = {}

    def keep(candidate: Candidate, needed: int, reason: str) -> None:
        endpoint = candidate.endpoint
        target, left = kept(
            decided.targets.get(endpoint, 0),
            needed,
            decided.excess.get(endpoint),
            candidate.pool.provision_s,
            now_s,
        )
        if left is not None:
            excess[endpoint] = left
        wanted[endpoint].is_sized = True
        wanted[endpoint].at_least(target, reason)

    for endpoint, replicas in sizing.home_replicas().items():
        keep(catalogue.candidates[endpoint], replicas, "the load that is forecast")
    bursting: dict[str, list[str]] = {}
    for name, state in after.items():
        if state.pool is None:
            continue
        candidate = catalogue.burst_candidate(name, state.pool)
        if state.phase is BurstPhase.BURSTING and candidate is not None:
            bursting.setdefault(candidate.endpoint, []).append(name)
        elif state.phase is BurstPhase.DRAINING:
            published = decided.draining_published.get(name)
            if published is not None and observation.oldest_snapshot >= published:
                continue
            for left in catalogue.by_pool[state.pool]:
                held = decided.targets.get(left.endpoint, 0)
                wanted[left.endpoint].at_least(held, f"{name} drains: {state.reason}")
    for endpoint, names in bursting.items():
        candidate = catalogue.candidates[endpoint]
        reason = "; ".join(f"{name} bursts: {after[name].reason}" for name in names)
        needed = sizing.rented_replicas(names, candidate)
        if needed is None:
            # Growth only: what a burst has is given back by its drain, under no live stream.
            held = decided.targets.get(endpoint, 0)
            most = max(_replicas_needed(catalogue, observation, n, candidate) for n in names)
            wanted[endpoint].at_least(max(most, held), reason)
        else:
            keep(candidate, max(needed, 1), reason)
    return wanted, excess


@dataclass(slots=True)
class Wanted:
    """A target as it is made, with the reason that decided it."""

    replicas: int
    reason: str
    is_sized: bool = False
    """Whether it goes by a forecast, down as well as up."""

    def at_least(self, replicas: int, reason: str) -> None:
        if replicas > self.replicas:
            self.replicas, self.reason = replicas, reason

    def at_most(self, replicas: int, reason: str) -> None:
        if replicas < self.replicas:
            self.replicas, self.reason = replicas, f"{reason}; {self.reason}"


def _provisions(
    catalogue: Catalogue, observation: Observation, decided: Decided, now_s: float
) -> dict[str, Provision]:
    patience = catalogue.configuration.controller.provision_patience
    return {
        endpoint: follow_up(
            decided.provisions.get(endpoint, NOTHING_ORDERED),
            decided.targets.get(endpoint, 0),
            _ready(observation, endpoint),
            observation.progress.get(endpoint, Progress()),
            candidate.pool.provision_s * patience,
            now_s,
        )
        for endpoint, candidate in catalogue.candidates.items()
    }


def _unavailable(
    catalogue: Catalogue,
    observation: Observation,
    workload: str,
    provisions: Mapping[str, Provision],
    now_s: float,
) -> dict[str, str]:
    """Burst pools of a workload that can give it nothing more, and why."""
    found = {}
    for pool in catalogue.burst_pools(workload):
        candidate = catalogue.burst_candidate(workload, pool)
        if candidate is None:
            found[pool] = f"pool '{pool}' runs nothing that the workload may use"
        elif pool in observation.held:
            found[pool] = f"pool '{pool}' is held by somebody's word"
        elif provisions[candidate.endpoint].given_up(now_s):
            provision = provisions[candidate.endpoint]
            until = time.strftime("%H:%M:%S", time.gmtime(provision.retry_at_s))
            found[pool] = f"pool '{pool}' is given up until {until} UTC: {provision.reason}"
    return found


def _with_its_delay(state: BurstState, limit_s: float, now_s: float) -> BurstState:
    """A drain that lasts longer than it should says so in its reason; it is never forced."""
    long = state.phase is BurstPhase.DRAINING and now_s - state.since_s > limit_s
    if not long or DELAYED in state.reason:
        return state
    return state.model_copy(update={"reason": f"{state.reason}; {DELAYED} {limit_s:g} s"})


def busy(observation: Observation, endpoint: str) -> bool:
    """Whether a request is open there, by any gateway's or the engine's own count. An engine that
    says nothing may run something."""
    state = observation.endpoints.get(endpoint, NOTHING)
    known = sum(state.inflight.values()) + state.running + state.waiting
    return known > 0 or endpoint in observation.unheard


def burst_signals(
    catalogue: Catalogue,
    observation: Observation,
    workload: str,
    burst: Burst,
    bursts: Mapping[str, BurstState],
) -> BurstSignals:
    pool = bursts.get(workload, BurstState()).pool
    ttft_p95_s: float | None = None
    waiting = demand = home_replicas = home_slots = 0
    for candidate in catalogue.home(workload):
        state = observation.endpoints.get(candidate.endpoint, NOTHING)
        if state.ttft_p95_s is not None:
            ttft_p95_s = max(ttft_p95_s or 0.0, state.ttft_p95_s)
        serving = _serving(observation, candidate)
        waiting += state.waiting + state.queued
        demand += _open(observation, candidate.endpoint)
        home_replicas += serving
        home_slots += serving * candidate.variant.max_num_seqs
    away = {p: catalogue.burst_candidate(workload, p) for p in burst.pools}
    return BurstSignals(
        ttft_p95_s=ttft_p95_s,
        waiting=waiting,
        demand=demand + sum(_open(observation, c.endpoint) for c in away.values() if c),
        home_replicas=home_replicas,
        home_slots=home_slots,
        quotes={p: observation.quotes[p] for p in burst.pools if p in observation.quotes},
        usd_per_million_tokens={
            p: candidate.usd_per_million_tokens(observation.quotes.get(p)) if candidate else None
            for p, candidate in away.items()
        },
        budget_left_usd=observation.budget_left_usd.get(workload),
        burst_pool_released=pool is None
        or _kept_by_another(catalogue, bursts, workload, pool)
        or _released(catalogue, observation, workload, pool),
        serving=frozenset(p for p, c in away.items() if c and _serving(observation, c)),
    )


def _released(catalogue: Catalogue, observation: Observation, workload: str, pool: str) -> bool:
    """Whether the workload's burst holds nothing there any more. Other variants of the pool are
    others' business, if it is known which one was its."""
    own = catalogue.burst_candidate(workload, pool)
    return not any(
        busy(observation, c.endpoint)
        or observation.replicas.get(c.endpoint, 0) > c.pool.min_replicas
        for c in ([own] if own is not None else catalogue.by_pool[pool])
    )


def _kept_by_another(
    catalogue: Catalogue, bursts: Mapping[str, BurstState], workload: str, pool: str
) -> bool:
    """Whether the burst of another workload goes on with the same replicas."""
    own = catalogue.burst_candidate(workload, pool)
    return any(
        name != workload
        and state.pool == pool
        and state.phase is BurstPhase.BURSTING
        and catalogue.burst_candidate(name, pool) is own
        for name, state in bursts.items()
    )


def _open(observation: Observation, endpoint: str) -> int:
    """Requests that it has, or would have if it could take them."""
    state = observation.endpoints.get(endpoint, NOTHING)
    return max(sum(state.inflight.values()), state.running + state.waiting) + state.queued


def _ready(observation: Observation, endpoint: str) -> int:
    return observation.endpoints.get(endpoint, NOTHING).ready_replicas


def _serving(observation: Observation, candidate: Candidate) -> int:
    """Replicas that take requests."""
    held = candidate.pool.name in observation.held
    return 0 if held else _ready(observation, candidate.endpoint)


def _slots(candidates: Iterable[Candidate], observation: Observation) -> int:
    return sum(_serving(observation, c) * c.variant.max_num_seqs for c in candidates)


def _replicas_needed(
    catalogue: Catalogue, observation: Observation, workload: str, candidate: Candidate
) -> int:
    """Replicas that hold what home cannot: at least one."""
    home = catalogue.home(workload)
    demand = sum(_open(observation, c.endpoint) for c in home) + _open(
        observation, candidate.endpoint
    )
    overflow = demand - _slots(home, observation)
    return max(1, ceil(overflow / candidate.variant.max_num_seqs))
