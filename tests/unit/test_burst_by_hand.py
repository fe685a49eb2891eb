"""Somebody's word on a burst overrides its triggers, and nothing else."""

from dataclasses import replace

import pytest

from orchestrator.capacity.burst import BurstSignals, step
from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.policy.snapshot import BurstPhase, BurstState
from tests.unit.test_burst import CALM, GONE, SLOW, TWO_POOLS, TWO_QUOTES
from tests.worlds import quote

HOLD = Override(kind=OverrideKind.HOLD)
FORCE = Override(kind=OverrideKind.FORCE)
RELEASE = Override(kind=OverrideKind.RELEASE)
HOME = BurstState(condition_since_s=1)
BURSTING = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=10, condition_since_s=20)


def next_state(state: BurstState, signals: BurstSignals, override: Override) -> BurstState:
    signals = replace(signals, override=override, quotes=signals.quotes | {"other-gpu": OTHER})
    return step(TWO_POOLS, state, signals, 1000)


OTHER = TWO_QUOTES["other-gpu"].model_copy(update={"valid_to_s": 1e9})
FRESH = {"cloud-gpu": quote(2.0, 990), "other-gpu": OTHER}
CALM_NOW, SLOW_NOW = replace(CALM, quotes=FRESH), replace(SLOW, quotes=FRESH)


def test_a_workload_that_is_held_stays_where_it_is() -> None:
    assert next_state(HOME, SLOW_NOW, HOLD).phase is BurstPhase.HOME
    assert next_state(BURSTING, CALM_NOW, HOLD).phase is BurstPhase.BURSTING


def test_a_forced_burst_starts_in_calm_at_the_cheapest_pool_or_the_one_that_is_named() -> None:
    for override, pool in (
        (FORCE, "cloud-gpu"),
        (FORCE.model_copy(update={"pool": "other-gpu"}), "other-gpu"),
    ):
        state = next_state(HOME, CALM_NOW, override)
        assert (state.phase, state.pool) == (BurstPhase.BURSTING, pool)
        assert next_state(state, CALM_NOW, override).phase is BurstPhase.BURSTING


def test_a_burst_that_is_forced_elsewhere_drains_first() -> None:
    elsewhere = FORCE.model_copy(update={"pool": "other-gpu"})
    assert next_state(BURSTING, SLOW_NOW, elsewhere).phase is BurstPhase.DRAINING


def test_a_released_burst_drains_whatever_its_triggers_say() -> None:
    assert next_state(BURSTING, SLOW_NOW, RELEASE).phase is BurstPhase.DRAINING


@pytest.mark.parametrize(
    ("signals", "why"),
    [
        (replace(CALM_NOW, budget_left_usd=0), "budget"),
        (replace(CALM_NOW, quotes={"cloud-gpu": quote(9.0, 990)}), "ceiling"),
        (replace(CALM_NOW, quotes={"cloud-gpu": quote(2.0, 0, valid_s=1)}), "old"),
        (replace(CALM_NOW, quotes={}, usd_per_million_tokens={}), "no price quote"),
        (replace(CALM_NOW, unavailable=GONE), "given up"),
    ],
)
def test_what_the_rules_forbid_cannot_be_forced(signals: BurstSignals, why: str) -> None:
    named = FORCE.model_copy(update={"pool": "cloud-gpu"})
    state = step(TWO_POOLS, HOME, replace(signals, override=named), 1000)
    assert state.phase is BurstPhase.HOME
    assert why in state.reason


@pytest.mark.parametrize("override", [HOLD, FORCE])
def test_neither_a_hold_nor_a_force_keeps_a_burst_that_has_become_too_dear(
    override: Override,
) -> None:
    dear = replace(SLOW_NOW, quotes={"cloud-gpu": quote(9.0, 990)})
    assert next_state(BURSTING, dear, override).phase is BurstPhase.DRAINING
    spent = replace(SLOW_NOW, budget_left_usd=0)
    assert next_state(BURSTING, spent, override).phase is BurstPhase.DRAINING


def test_a_word_ends_with_its_time() -> None:
    until = HOLD.model_copy(update={"until_s": 1000})
    assert until.holds(999)
    assert not until.holds(1000)
