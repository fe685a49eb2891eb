"""The burst state machine of one workload: `home → bursting → draining → home`."""

from dataclasses import dataclass

from orchestrator.config.spec import Burst
from orchestrator.policy.snapshot import BurstPhase, BurstState, Quote


@dataclass(frozen=True, slots=True)
class BurstSignals:
    """What the machine looks at. None means not known, which triggers nothing."""

    ttft_p95_s: float | None
    """Of the worst home endpoint."""
    waiting: int
    """Requests that wait for their first token at home."""
    demand: int
    """Requests open at home and on the burst pool together."""
    home_replicas: int
    home_slots: int
    """Sequences that the ready home replicas decode at once."""
    quotes: dict[str, Quote]
    """By burst pool."""
    budget_left_usd: float | None
    """None: no budget is set."""
    burst_pool_released: bool
    """The burst holds nothing any more: no request is open on the pool and the replicas that it
    added are gone, or another burst keeps them."""


def step(spec: Burst, state: BurstState, signals: BurstSignals, now_s: float) -> BurstState:
    """The state after this tick."""
    if state.phase is BurstPhase.HOME:
        return _at_home(spec, state, signals, now_s)
    if state.phase is BurstPhase.BURSTING:
        return _while_bursting(spec, state, signals, now_s)
    if signals.burst_pool_released:
        return BurstState(since_s=now_s, reason=f"drained: {state.reason}")
    return state


def trigger(spec: Burst, signals: BurstSignals) -> str | None:
    """The sentence of the first trigger that is met."""
    p95 = signals.ttft_p95_s
    if spec.ttft_p95_s is not None and p95 is not None and p95 > spec.ttft_p95_s:
        return f"TTFT p95 at home is {p95:.2f} s, above {spec.ttft_p95_s:g} s"
    if spec.queue_per_replica is not None and signals.home_replicas > 0:
        queue = signals.waiting / signals.home_replicas
        if queue > spec.queue_per_replica:
            return f"{queue:.0f} requests wait per home replica, above {spec.queue_per_replica:g}"
    return None


def choose_pool(spec: Burst, signals: BurstSignals, now_s: float) -> tuple[str | None, str]:
    """The cheapest pool with a fresh quote under the ceiling, or None and why not."""
    if signals.budget_left_usd is not None and signals.budget_left_usd <= 0:
        return None, "today's budget is spent"
    refusals, fresh = [], []
    for pool in spec.pools:
        quote = signals.quotes.get(pool)
        if quote is None:
            refusals.append(f"pool '{pool}' has no price quote")
        elif quote.valid_to_s < now_s:
            refusals.append(f"the quote of pool '{pool}' is {now_s - quote.fetched_at_s:.0f} s old")
        elif quote.usd_per_gpu_hour > spec.max_usd_per_gpu_hour:
            refusals.append(
                f"pool '{pool}' costs {quote.usd_per_gpu_hour:.2f} USD per GPU-hour, above the "
                f"ceiling of {spec.max_usd_per_gpu_hour:.2f}"
            )
        else:
            fresh.append((quote.usd_per_gpu_hour, pool))
    if fresh:
        return min(fresh)[1], ""
    return None, "; ".join(refusals)


def _at_home(spec: Burst, state: BurstState, signals: BurstSignals, now_s: float) -> BurstState:
    why = trigger(spec, signals)
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
    pool, refusal = choose_pool(spec, signals, now_s)
    if pool is None:
        return waiting.model_copy(update={"reason": f"{why}, but {refusal}"})
    return BurstState(phase=BurstPhase.BURSTING, pool=pool, since_s=now_s, reason=why)


def _while_bursting(
    spec: Burst, state: BurstState, signals: BurstSignals, now_s: float
) -> BurstState:
    quote = signals.quotes.get(state.pool or "")
    if quote is not None and quote.usd_per_gpu_hour > spec.max_usd_per_gpu_hour:
        return _drain(
            state,
            f"the price rose to {quote.usd_per_gpu_hour:.2f} USD per GPU-hour, above the ceiling "
            f"of {spec.max_usd_per_gpu_hour:.2f}",
            now_s,
        )
    if signals.budget_left_usd is not None and signals.budget_left_usd <= 0:
        return _drain(state, "today's budget is spent", now_s)

    # With home replicas lost there is no capacity to come back to.
    calm = (
        signals.home_slots > 0
        and signals.demand <= spec.release_utilization * signals.home_slots
        and trigger(spec, signals) is None
    )
    if not calm:
        return state.model_copy(update={"condition_since_s": None})
    held_since = now_s if state.condition_since_s is None else state.condition_since_s
    calm_s = now_s - held_since
    if calm_s < spec.release_sustained_s or now_s - state.since_s < spec.min_dwell_s:
        return state.model_copy(update={"condition_since_s": held_since})
    return _drain(
        state,
        f"{signals.demand} open requests fit into {spec.release_utilization:.0%} of "
        f"{signals.home_slots} home slots",
        now_s,
    )


def _drain(state: BurstState, reason: str, now_s: float) -> BurstState:
    return BurstState(phase=BurstPhase.DRAINING, pool=state.pool, since_s=now_s, reason=reason)
