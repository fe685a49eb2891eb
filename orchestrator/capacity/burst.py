"""The burst state machine of one workload: `home → bursting → draining → home`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.config.spec import Burst, PriceCeiling, Schedule, Workload
from orchestrator.policy.snapshot import BurstPhase, BurstState, Quote

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class BurstSignals:
    """What the machine looks at. None means not known, which triggers nothing."""

    ttft_p95_s: float | None
    """Of the worst home endpoint."""
    waiting: int
    """Requests that wait for their first token at home, in its engines or in gateways."""
    demand: int
    """Requests open at home and on the burst pool together, and those that wait in gateways."""
    home_replicas: int
    home_slots: int
    """Sequences that the ready home replicas decode at once."""
    quotes: dict[str, Quote]
    """By burst pool."""
    usd_per_million_tokens: dict[str, float | None]
    """By burst pool; None where it is not known."""
    budget_left_usd: float | None
    """None: no budget is set."""
    burst_pool_released: bool
    """The burst holds nothing any more: no request is open on the pool and the replicas that it
    added are gone, or another burst keeps them."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Burst pools that can give nothing more, each with the sentence that says why."""
    serving: frozenset[str] = frozenset()
    """Burst pools that have a replica which takes requests."""
    override: Override | None = None
    """Somebody's word that holds now."""
    needed: int | None = None
    """Replicas for what home will not carry of the load that is forecast; None where no forecast is
    made."""


def step(workload: Workload, state: BurstState, signals: BurstSignals, now_s: float) -> BurstState:
    """The state after this tick, of a workload that may burst."""
    spec = workload.burst
    assert spec is not None
    if signals.override is not None and signals.override.pool is not None:
        spec = spec.model_copy(update={"pools": [signals.override.pool]})
    if state.phase is BurstPhase.HOME:
        return _at_home(spec, workload.price_ceiling, state, signals, now_s)
    if state.phase is BurstPhase.BURSTING:
        return _while_bursting(spec, workload.price_ceiling, state, signals, now_s)
    if signals.burst_pool_released:
        return BurstState(since_s=now_s, reason=f"drained: {state.reason}")
    return state


def trigger(spec: Burst, signals: BurstSignals, now_s: float) -> str | None:
    """The sentence of the first trigger that is met."""
    p95 = signals.ttft_p95_s
    if spec.ttft_p95_s is not None and p95 is not None and p95 > spec.ttft_p95_s:
        return f"TTFT p95 at home is {p95:.2f} s, above {spec.ttft_p95_s:g} s"
    if spec.queue_per_replica is not None and signals.waiting:
        if not signals.home_replicas:
            return f"{signals.waiting} requests wait, and home has no replica"
        queue = signals.waiting / signals.home_replicas
        if queue > spec.queue_per_replica:
            return f"{queue:.0f} requests wait per home replica, above {spec.queue_per_replica:g}"
    if signals.needed:
        return f"the load that is forecast needs {signals.needed} more than home has"
    for schedule in spec.schedule:
        if in_hours(schedule, now_s):
            return f"the schedule says so until {schedule.end:%H:%M} {schedule.timezone}"
    if spec.usd_per_gpu_hour_below is not None:
        fresh = {p: q for p, q in signals.quotes.items() if q.valid_to_s >= now_s}
        for pool, quote in fresh.items():
            if quote.usd_per_gpu_hour < spec.usd_per_gpu_hour_below:
                return (
                    f"pool '{pool}' costs {quote.usd_per_gpu_hour:.2f} USD per GPU-hour, below "
                    f"{spec.usd_per_gpu_hour_below:.2f}"
                )
    return None


def in_hours(schedule: Schedule, now_s: float) -> bool:
    """Whether a moment, in seconds since the epoch, lies within the schedule's local hours."""
    now = datetime.fromtimestamp(now_s, ZoneInfo(schedule.timezone))
    over_midnight = schedule.end <= schedule.start
    if schedule.start <= now.time() and (over_midnight or now.time() < schedule.end):
        return DAYS[now.weekday()] in schedule.days
    # The hours after midnight belong to the day on which the schedule began.
    yesterday = now - timedelta(days=1)
    return (
        over_midnight and now.time() < schedule.end and DAYS[yesterday.weekday()] in schedule.days
    )


def choose_pool(
    spec: Burst, ceiling: PriceCeiling, signals: BurstSignals, now_s: float
) -> tuple[str | None, str]:
    """The pool with a fresh quote under the ceiling that does the work for the least, as far as
    speeds are known; else one that charges by the token; else None and why not."""
    if signals.budget_left_usd is not None and signals.budget_left_usd <= 0:
        return None, "today's budget is spent"
    refusals, fresh = [], []
    for pool in spec.pools:
        quote = signals.quotes.get(pool)
        dear = next(_above_ceiling(pool, ceiling, signals), None)
        if pool in signals.unavailable:
            refusals.append(signals.unavailable[pool])
        elif quote is None and signals.usd_per_million_tokens.get(pool) is None:
            refusals.append(f"pool '{pool}' has no price quote")
        elif quote is not None and quote.valid_to_s < now_s:
            age_s = now_s - quote.fetched_at_s
            refusals.append(f"the quote of pool '{pool}' is stale: it is {age_s:.0f} s old")
        elif dear is not None:
            refusals.append(dear)
        else:
            fresh.append(pool)
    if fresh:
        return min(fresh, key=_by_price(fresh, signals)), ""
    return None, "; ".join(refusals)


def _by_price(pools: Sequence[str], signals: BurstSignals) -> Callable[[str], tuple[float, str]]:
    """By the hour where it is not known of all of them what they do in it. By the token is last."""
    hourly = [pool for pool in pools if pool in signals.quotes]
    usd = {pool: signals.quotes[pool].usd_per_gpu_hour for pool in hourly}
    for_work = {pool: signals.usd_per_million_tokens.get(pool) for pool in hourly}
    if None not in for_work.values():
        usd = {pool: tokens for pool, tokens in for_work.items() if tokens is not None}
    return lambda pool: (usd.get(pool, float("inf")), pool)


def _above_ceiling(pool: str, ceiling: PriceCeiling, signals: BurstSignals) -> Iterator[str]:
    """Why a pool with a quote is too dear."""
    quote, per_hour = signals.quotes.get(pool), ceiling.usd_per_gpu_hour
    if quote is not None and per_hour is not None and quote.usd_per_gpu_hour > per_hour:
        yield (
            f"pool '{pool}' costs {quote.usd_per_gpu_hour:.2f} USD per GPU-hour, above the ceiling "
            f"of {per_hour:.2f}"
        )
    tokens, per_million = signals.usd_per_million_tokens.get(pool), ceiling.usd_per_million_tokens
    if per_million is not None:
        if tokens is None:
            yield f"what a token costs on pool '{pool}' is not known"
        elif tokens > per_million:
            yield (
                f"pool '{pool}' costs {tokens:.2f} USD per million tokens, above the ceiling of "
                f"{per_million:.2f}"
            )


def _at_home(
    spec: Burst, ceiling: PriceCeiling, state: BurstState, signals: BurstSignals, now_s: float
) -> BurstState:
    kind = signals.override.kind if signals.override is not None else None
    if kind is OverrideKind.HOLD:
        return state.model_copy(update={"condition_since_s": None, "reason": "held by hand"})
    if kind is OverrideKind.FORCE:
        pool, refusal = choose_pool(spec, ceiling, signals, now_s)
        if pool is None:
            return state.model_copy(update={"reason": f"forced by hand, but {refusal}"})
        return BurstState(
            phase=BurstPhase.BURSTING, pool=pool, since_s=now_s, reason="forced by hand"
        )
    why = trigger(spec, signals, now_s)
    if why is None:
        return state.model_copy(
            update={"condition_since_s": None, "reason": "no trigger of a burst is met"}
        )
    held_since = now_s if state.condition_since_s is None else state.condition_since_s
    waiting = state.model_copy(update={"condition_since_s": held_since})
    if now_s - held_since < spec.sustained_s:
        return waiting.model_copy(update={"reason": f"{why}, for less than {spec.sustained_s:g} s"})
    if state.since_s and now_s - state.since_s < spec.cooldown_s:
        return waiting.model_copy(update={"reason": f"{why}, but the last burst just ended"})
    pool, refusal = choose_pool(spec, ceiling, signals, now_s)
    if pool is None:
        return waiting.model_copy(update={"reason": f"{why}, but {refusal}"})
    return BurstState(phase=BurstPhase.BURSTING, pool=pool, since_s=now_s, reason=why)


def _while_bursting(
    spec: Burst, ceiling: PriceCeiling, state: BurstState, signals: BurstSignals, now_s: float
) -> BurstState:
    if state.pool in signals.quotes:
        dear = next(_above_ceiling(state.pool, ceiling, signals), None)
        if dear is not None:
            return _drain(state, f"the price rose: {dear}", now_s)
    if signals.budget_left_usd is not None and signals.budget_left_usd <= 0:
        return _drain(state, "today's budget is spent", now_s)
    if (
        state.pool is not None
        and state.pool in signals.unavailable
        and state.pool not in signals.serving
    ):
        other, _ = choose_pool(spec, ceiling, signals, now_s)
        if other is not None:
            return BurstState(
                phase=BurstPhase.BURSTING,
                pool=other,
                since_s=now_s,
                reason=signals.unavailable[state.pool],
            )

    if signals.override is not None:
        kind = signals.override.kind
        if kind is OverrideKind.RELEASE:
            return _drain(state, "released by hand", now_s)
        if kind is OverrideKind.FORCE and state.pool not in spec.pools:
            return _drain(state, f"forced by hand to pool '{signals.override.pool}'", now_s)
        return state.model_copy(update={"condition_since_s": None})

    if not _is_calm(spec, signals, now_s):
        return state.model_copy(update={"condition_since_s": None})
    held_since = now_s if state.condition_since_s is None else state.condition_since_s
    calm_s = now_s - held_since
    if calm_s < spec.release_sustained_s or now_s - state.since_s < spec.min_dwell_s:
        return state.model_copy(update={"condition_since_s": held_since})
    if signals.needed is not None:
        return _drain(state, "home carries the load that is forecast", now_s)
    return _drain(
        state,
        f"{signals.demand} open requests fit into {spec.release_utilization:.0%} of "
        f"{signals.home_slots} home slots",
        now_s,
    )


def _is_calm(spec: Burst, signals: BurstSignals, now_s: float) -> bool:
    # With home replicas lost there is no capacity to come back to.
    if not signals.home_slots or trigger(spec, signals, now_s) is not None:
        return False
    if signals.needed is not None:
        return True
    return signals.demand <= spec.release_utilization * signals.home_slots


def _drain(state: BurstState, reason: str, now_s: float) -> BurstState:
    return BurstState(phase=BurstPhase.DRAINING, pool=state.pool, since_s=now_s, reason=reason)
