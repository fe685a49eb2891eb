"""A demonstration is judged by what was measured, and fails when any claim does."""

from typing import Any

from orchestrator.replay.client import Outcome
from orchestrator.replay.observer import Sample
from orchestrator.replay.verdict import Check, Scene, judge

SCENE = Scene("assistant", "records", "home", "cloud", ttft_p95_s=1.5, busy_until_s=100)


def sample(at_s: float, p95_s: float | None, ready: int, state: str) -> Sample:
    pools: dict[str, Any] = {
        "home": {"replicas_ready": 1, "replicas": 1, "variants": {"v": {"ttft_p95_s": p95_s}}},
        "cloud": {"replicas_ready": ready, "replicas": ready, "variants": {}},
    }
    return Sample(at_s, {"pools": pools, "bursts": {"assistant": {"state": state}}})


GOOD = [
    sample(0, 0.1, 0, "home"),
    sample(30, 2.0, 0, "home"),
    sample(50, 9.0, 1, "bursting"),
    sample(80, 1.0, 1, "bursting"),
    sample(130, None, 0, "home"),
]
OUTCOMES = [
    Outcome("r-0", "assistant", 1, status="ok", pool="cloud"),
    Outcome("r-1", "records", 2, status="ok", pool="home"),
]


def failed(checks: list[Check]) -> list[int]:
    return [number for number, check in enumerate(checks) if not check.holds]


def test_all_claims_hold_when_it_went_as_it_should() -> None:
    assert failed(judge(SCENE, OUTCOMES, GOOD, {"r-0"})) == []


def test_relief_that_comes_after_the_load_is_none() -> None:
    late = [*GOOD[:3], sample(110, 1.0, 1, "bursting"), GOOD[4]]
    assert failed(judge(SCENE, OUTCOMES, late, {"r-0"})) == [2]


def test_a_home_that_was_calm_before_the_cloud_served_was_not_relieved_by_it() -> None:
    calm = [*GOOD[:2], sample(50, 1.0, 1, "bursting"), *GOOD[3:]]
    assert failed(judge(SCENE, OUTCOMES, calm, {"r-0"})) == [2]


def test_an_order_of_events_that_explains_nothing_is_not_accepted() -> None:
    # The cloud was there before home was slow.
    samples = [sample(0, 0.1, 1, "home"), sample(30, 2.0, 0, "home"), sample(60, 0.1, 0, "home")]
    assert 1 in failed(judge(SCENE, OUTCOMES, samples, {"r-0"}))


def test_one_failed_request_one_restricted_id_or_an_empty_record_fails() -> None:
    cut = [*OUTCOMES, Outcome("r-2", "assistant", 3, status="cut", pool="home")]
    assert failed(judge(SCENE, cut, GOOD, {"r-0"})) == [4]
    assert failed(judge(SCENE, OUTCOMES, GOOD, {"r-0", "r-1"})) == [6]
    assert failed(judge(SCENE, OUTCOMES, GOOD, set())) == [5]
    assert failed(judge(SCENE, [], [], set())) == [0, 1, 2, 3, 4, 5, 6]
