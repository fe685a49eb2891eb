"""Which failures eject an endpoint, for how long, and how it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.ejection import (
    FAILURES_IN_A_ROW,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MIN_ATTEMPTS,
    Ejection,
)
from orchestrator.policy.retries import CAPACITY, PER_S, RetryBudget

TRIAL = object()
ILL = ["cut"] * FAILURES_IN_A_ROW


def after(*reasons: str, at_s: float = 100) -> Ejection:
    ejection = Ejection()
    for reason in reasons:
        ejection.failed("p/v", None, reason, at_s)
    return ejection


@pytest.mark.parametrize(
    "reason", ["status_500", "status_503", "timeout", "stalled", "cut", "malformed", "unreachable"]
)
def test_an_endpoint_that_is_ill_is_left_alone_for_a_while(reason: str) -> None:
    assert not after(*[reason] * (FAILURES_IN_A_ROW - 1)).ejected(100)
    ejection = after(*[reason] * FAILURES_IN_A_ROW)
    assert set(ejection.ejected(100)) == {"p/v"}
    assert not ejection.ejected(100 + FIRST_PAUSE_S)


@pytest.mark.parametrize(
    "reason", ["status_404", "status_401", "status_429", "status_302", "evicted"]
)
def test_what_says_nothing_of_its_health_ejects_nothing(reason: str) -> None:
    assert not after(*[reason] * FAILURES_IN_A_ROW * 2).ejected(100)


def test_one_success_clears_the_count() -> None:
    ejection = after(*ILL[1:])
    ejection.succeeded("p/v", 100)
    ejection.failed("p/v", None, "cut", 100)
    assert not ejection.ejected(100)


def test_one_that_fails_every_other_time_is_ejected_too() -> None:
    ejection = Ejection()
    for _ in range(MIN_ATTEMPTS // 2):
        ejection.succeeded("p/v", 100)
        assert not ejection.ejected(100)
        ejection.failed("p/v", None, "cut", 100)
    assert "failed 10 of 20 times" in ejection.ejected(100)["p/v"]


def test_after_the_pause_one_request_tries_it_and_the_others_keep_away() -> None:
    ejection = after(*ILL)
    now_s = 100 + FIRST_PAUSE_S
    assert not ejection.ejected(now_s)
    ejection.opened("p/v", TRIAL, now_s)
    assert "on trial" in ejection.ejected(now_s)["p/v"]
    ejection.succeeded("p/v", now_s)
    assert not ejection.ejected(now_s)


def test_a_trial_whose_client_leaves_is_followed_by_another() -> None:
    ejection = after(*ILL)
    now_s = 100 + FIRST_PAUSE_S
    ejection.opened("p/v", TRIAL, now_s)
    ejection.closed("p/v", TRIAL)
    assert not ejection.ejected(now_s)


def test_each_trial_that_fails_makes_the_pause_longer_up_to_a_bound() -> None:
    ejection, now_s, pauses_s = after(*ILL), 100.0, []
    for _ in range(6):
        began_s = now_s
        while ejection.ejected(now_s):
            now_s += 1
        pauses_s.append(now_s - began_s)
        ejection.opened("p/v", TRIAL, now_s)
        ejection.failed("p/v", TRIAL, "cut", now_s)
    assert pauses_s == [5, 10, 20, 40, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@given(st.lists(st.sampled_from(["open", "fail", "succeed", "close", "wait"])))
def test_whatever_happens_an_endpoint_gets_its_trial_in_the_end(steps: list[str]) -> None:
    ejection, now_s = Ejection(), 100.0
    for step in steps:
        if step == "open":
            ejection.opened("p/v", TRIAL, now_s)
        elif step == "fail":
            ejection.failed("p/v", TRIAL, "cut", now_s)
        elif step == "succeed":
            ejection.succeeded("p/v", now_s)
        elif step == "close":
            ejection.closed("p/v", TRIAL)
        else:
            now_s += 7
    ejection.closed("p/v", TRIAL)
    assert not ejection.ejected(now_s + LONGEST_PAUSE_S)


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200),
)
def test_retries_are_a_share_of_requests_beyond_a_few(
    share: float, steps: list[tuple[float, bool]]
) -> None:
    budget, now_s, spent, requests = RetryBudget(), 0.0, 0, 0
    for wait_s, asks in steps:
        now_s += wait_s
        requests += 1
        budget.request(share, now_s)
        spent += asks and budget.spend()
    assert spent <= CAPACITY + share * requests + PER_S * now_s + 1e-6


def test_without_a_budget_left_there_is_no_retry() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(int(CAPACITY) + 1)] == [True] * int(CAPACITY) + [False]


def test_what_one_fault_broke_at_once_is_one_fault() -> None:
    ejection = after(*["cut"] * 2000)
    assert ejection.ejected(100 + FIRST_PAUSE_S - 1)
    assert not ejection.ejected(100 + FIRST_PAUSE_S)


def test_an_old_attempt_that_ends_is_not_the_trial() -> None:
    ejection, old = after(*ILL), object()
    now_s = 100 + FIRST_PAUSE_S
    ejection.opened("p/v", TRIAL, now_s)
    ejection.closed("p/v", old)
    ejection.failed("p/v", old, "cut", now_s)
    assert "on trial" in ejection.ejected(now_s)["p/v"]


def test_pauses_stop_growing_however_often_trials_fail() -> None:
    ejection, now_s = after(*ILL), 100.0
    for _ in range(3000):
        now_s += LONGEST_PAUSE_S
        ejection.opened("p/v", TRIAL, now_s)
        ejection.failed("p/v", TRIAL, "cut", now_s)
    assert not ejection.ejected(now_s + LONGEST_PAUSE_S)


def test_after_a_long_time_of_health_a_pause_is_a_first_one() -> None:
    ejection = after(*ILL)
    ejection.opened("p/v", TRIAL, 105)
    ejection.failed("p/v", TRIAL, "cut", 105)
    ejection.succeeded("p/v", 200)
    for _ in ILL:
        ejection.failed("p/v", None, "cut", 1000)
    assert not ejection.ejected(1000 + FIRST_PAUSE_S)
