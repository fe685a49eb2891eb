"""When a workload leaves home, and when it comes back."""

from dataclasses import replace
from datetime import datetime, time

import pytest

from orchestrator.capacity.burst import BurstSignals, in_hours, step
from orchestrator.capacity.planner import Decided, Observation, plan
from orchestrator.config.spec import PriceCeiling, Schedule, Workload
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from tests.worlds import quote, small

WORLD = small()
WORKLOAD = WORLD.workloads["assistant"]
SPEC = WORKLOAD.burst
assert SPEC is not None

CALM = BurstSignals(
    ttft_p95_s=0.2,
    waiting=0,
    demand=1,
    home_replicas=1,
    home_slots=4,
    quotes={"cloud-gpu": quote(2.0, 100)},
    budget_left_usd=5,
    burst_pool_released=True,
    usd_per_million_tokens={"cloud-gpu": None},
)
SLOW = replace(CALM, ttft_p95_s=3.0, demand=20)


def with_burst(**changes: object) -> Workload:
    assert SPEC is not None
    return WORKLOAD.model_copy(update={"burst": SPEC.model_copy(update=changes)})


def after(
    signals: BurstSignals,
    seconds: int,
    state: BurstState,
    start_s: float,
    workload: Workload = WORKLOAD,
) -> BurstState:
    for second in range(seconds + 1):
        state = step(workload, state, signals, start_s + second)
    return state


def test_a_trigger_starts_a_burst_only_when_it_lasts() -> None:
    assert after(SLOW, 2, BurstState(), 100).phase is BurstPhase.HOME
    bursting = after(SLOW, 3, BurstState(), 100)
    assert (bursting.phase, bursting.pool) == (BurstPhase.BURSTING, "cloud-gpu")


def test_where_it_need_not_last_it_is_enough_to_see_it_once() -> None:
    at_once = with_burst(sustained_s=0)
    assert after(SLOW, 0, BurstState(), 100, at_once).phase is BurstPhase.BURSTING


def test_no_measurement_triggers_nothing() -> None:
    assert after(replace(SLOW, ttft_p95_s=None), 60, BurstState(), 100).phase is BurstPhase.HOME


def test_a_queue_is_a_trigger_and_with_no_replica_at_home_any_is_too_long() -> None:
    for waiting, home_replicas, phase in (
        (8, 1, BurstPhase.HOME),
        (9, 1, BurstPhase.BURSTING),
        (9, 2, BurstPhase.HOME),
        (1, 0, BurstPhase.BURSTING),
        (0, 0, BurstPhase.HOME),
    ):
        signals = replace(CALM, waiting=waiting, home_replicas=home_replicas)
        assert after(signals, 3, BurstState(), 100).phase is phase


def test_above_the_ceiling_the_same_load_does_not_burst_and_says_why() -> None:
    state = after(replace(SLOW, quotes={"cloud-gpu": quote(3.2, 100)}), 60, BurstState(), 100)
    assert state.phase is BurstPhase.HOME
    assert "3.20" in state.reason
    assert "ceiling of 3.00" in state.reason


def test_a_short_calm_does_not_end_a_burst() -> None:
    patient = with_burst(release_sustained_s=20)
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    for second in range(200, 260):
        signals = CALM if second % 15 else SLOW
        state = step(patient, state, signals, second)
        assert state.phase is BurstPhase.BURSTING
    for second in range(260, 281):
        state = step(patient, state, replace(CALM, burst_pool_released=False), second)
    assert state.phase is BurstPhase.DRAINING


def test_a_stale_quote_starts_no_burst() -> None:
    stale = replace(SLOW, quotes={"cloud-gpu": quote(2.0, 0, valid_s=10)})
    assert after(stale, 60, BurstState(), 100).phase is BurstPhase.HOME


def test_a_spent_budget_starts_no_burst() -> None:
    state = after(replace(SLOW, budget_left_usd=0), 60, BurstState(), 100)
    assert state.phase is BurstPhase.HOME


def test_a_burst_stays_for_its_dwell_and_then_drains() -> None:
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    assert after(CALM, 29, state, 100).phase is BurstPhase.BURSTING
    assert after(CALM, 30, state, 100).phase is BurstPhase.DRAINING


def test_a_burst_stays_while_home_could_not_hold_the_load() -> None:
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    assert after(replace(CALM, demand=4), 600, state, 100).phase is BurstPhase.BURSTING


def test_a_price_above_the_ceiling_ends_a_burst_at_once() -> None:
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    dear = replace(SLOW, quotes={"cloud-gpu": quote(3.5, 101)})
    assert step(WORKLOAD, state, dear, 101).phase is BurstPhase.DRAINING


def test_after_a_burst_the_next_one_waits_for_the_cooldown() -> None:
    draining = BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=90)
    home = step(WORKLOAD, draining, SLOW, 100)
    assert home.phase is BurstPhase.HOME
    assert after(SLOW, 19, home, 100).phase is BurstPhase.HOME
    assert after(SLOW, 21, home, 100).phase is BurstPhase.BURSTING


def test_without_a_known_price_per_token_a_ceiling_on_it_starts_no_burst() -> None:
    per_token = WORKLOAD.model_copy(
        update={"price_ceiling": PriceCeiling(usd_per_million_tokens=2)}
    )
    state = BurstState(condition_since_s=1)
    assert step(per_token, state, SLOW, 100).phase is BurstPhase.HOME
    for usd, phase in ((1.5, BurstPhase.BURSTING), (2.5, BurstPhase.HOME)):
        known = replace(SLOW, usd_per_million_tokens={"cloud-gpu": usd})
        assert step(per_token, state, known, 100).phase is phase


def test_a_low_price_is_a_trigger_of_its_own() -> None:
    thrifty = with_burst(usd_per_gpu_hour_below=1.5)
    state = BurstState(condition_since_s=1)
    cheap = replace(CALM, quotes={"cloud-gpu": quote(1.2, 100)})
    assert step(thrifty, state, CALM, 100).phase is BurstPhase.HOME
    assert step(thrifty, state, cheap, 100).phase is BurstPhase.BURSTING


OFFICE = Schedule(days=["mon"], start=time(8), end=time(18), timezone="Europe/Berlin")
NIGHT = Schedule(days=["mon"], start=time(22), end=time(6), timezone="UTC")


@pytest.mark.parametrize(
    ("schedule", "moment", "within"),
    [
        (OFFICE, "2026-03-02T06:59Z", False),
        (OFFICE, "2026-03-02T07:00Z", True),
        (OFFICE, "2026-03-02T16:59Z", True),
        (OFFICE, "2026-03-02T17:00Z", False),
        (OFFICE, "2026-07-06T06:00Z", True),
        (OFFICE, "2026-03-03T09:00Z", False),
        (NIGHT, "2026-03-02T22:00Z", True),
        (NIGHT, "2026-03-03T05:59Z", True),
        (NIGHT, "2026-03-03T06:00Z", False),
        (NIGHT, "2026-03-02T05:00Z", False),
    ],
)
def test_a_schedule_holds_in_its_own_timezone(
    schedule: Schedule, moment: str, within: bool
) -> None:
    assert in_hours(schedule, datetime.fromisoformat(moment).timestamp()) is within


def test_scheduled_hours_start_a_burst_and_keep_it() -> None:
    planned = with_burst(schedule=[OFFICE])
    monday_s = datetime.fromisoformat("2026-03-02T09:00Z").timestamp()
    fresh = replace(CALM, quotes={"cloud-gpu": quote(2.0, monday_s, valid_s=1e6)})
    state = BurstState(condition_since_s=1)
    state = step(planned, state, fresh, monday_s)
    assert state.phase is BurstPhase.BURSTING
    assert step(planned, state, fresh, monday_s + 3600).phase is BurstPhase.BURSTING
    evening_s = int(monday_s) + 12 * 3600
    assert after(fresh, 40, state, evening_s, planned).phase is BurstPhase.HOME


CLOUD = "cloud-gpu/m-fp16"


def targets(inflight: int, oldest_snapshot: int) -> int:
    observation = Observation(
        endpoints={CLOUD: EndpointState(ready_replicas=1, inflight={"g": inflight})},
        replicas={CLOUD: 1},
        quotes={"cloud-gpu": quote(2.0, 100)},
        budget_left_usd={},
        oldest_snapshot=oldest_snapshot,
    )
    draining = {"assistant": BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=90)}
    decided = Decided(draining, {CLOUD: 1}, {"assistant": 50})
    return plan(WORLD, observation, decided, 100).targets[CLOUD]


def test_a_drain_keeps_the_replica_under_a_live_stream() -> None:
    assert targets(inflight=1, oldest_snapshot=60) == 1


def test_a_drain_waits_until_every_gateway_knows() -> None:
    assert targets(inflight=0, oldest_snapshot=49) == 1


def test_a_drained_pool_goes_to_zero() -> None:
    assert targets(inflight=0, oldest_snapshot=50) == 0


TWO_POOLS = with_burst(pools=["cloud-gpu", "other-gpu"])
TWO_QUOTES = {"cloud-gpu": quote(2.0, 100), "other-gpu": quote(2.5, 100)}
GONE = {"cloud-gpu": "pool 'cloud-gpu' is given up"}


def test_a_burst_goes_to_the_next_best_pool_when_its_own_gives_nothing() -> None:
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    signals = replace(SLOW, quotes=TWO_QUOTES, unavailable=GONE)
    gone = step(TWO_POOLS, state, signals, 200)
    assert (gone.phase, gone.pool, gone.since_s) == (BurstPhase.BURSTING, "other-gpu", 200)
    assert gone.reason == GONE["cloud-gpu"]
    still_serving = replace(signals, serving=frozenset({"cloud-gpu"}))
    assert step(TWO_POOLS, state, still_serving, 200).pool == "cloud-gpu"


def test_a_burst_that_can_go_nowhere_stays_and_tries_again() -> None:
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=100)
    dear = {**TWO_QUOTES, "other-gpu": quote(9.0, 100)}
    signals = replace(SLOW, quotes=dear, unavailable=GONE)
    assert step(TWO_POOLS, state, signals, 200).pool == "cloud-gpu"


def test_a_pool_that_is_given_up_starts_no_burst_and_another_one_does() -> None:
    state = BurstState(condition_since_s=1)
    alone = step(WORKLOAD, state, replace(SLOW, unavailable=GONE), 100)
    assert alone.phase is BurstPhase.HOME
    assert GONE["cloud-gpu"] in alone.reason
    signals = replace(SLOW, quotes=TWO_QUOTES, unavailable=GONE)
    assert step(TWO_POOLS, state, signals, 100).pool == "other-gpu"
