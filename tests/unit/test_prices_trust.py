"""What of a feed's figures is believed, and for how long."""

from typing import Any

import pytest

from orchestrator.config.spec import PriceFeed
from orchestrator.signals.prices_trust import Trust, judge, unreachable

NAN, INF = float("nan"), float("inf")


def feed(unit: str = "usd_per_gpu_hour", **plausible: Any) -> PriceFeed:
    raw = {"name": "f", "file": "f.csv", "unit": unit, "max_age_s": 100, "plausible": plausible}
    return PriceFeed.model_validate(raw)


def after(spec: PriceFeed, *said: float | None) -> Trust:
    """Fetches ten seconds apart, from 1000 on."""
    trust = Trust()
    for number, figure in enumerate(said):
        trust = judge(spec, trust, figure, None, 1000 + 10 * number)
    return trust


def good(trust: Trust) -> float:
    assert trust.good is not None
    return trust.good.value


def test_a_price_within_the_band_is_believed_at_once() -> None:
    trust = after(feed(), 2.0, 3.9)
    assert (good(trust), trust.refused) == (3.9, None)
    assert trust.good is not None
    assert (trust.good.fetched_at_s, trust.good.valid_to_s) == (1010, 1110)


@pytest.mark.parametrize("absurd", [NAN, INF, -INF, 0.0, -0.0, -2.0, 1001.0, None])
def test_what_cannot_be_is_never_believed(absurd: float | None) -> None:
    assert after(feed(), *[absurd] * 20).good is None
    trust = after(feed(), 2.0, *[absurd] * 20)
    assert good(trust) == 2.0
    assert trust.refused


@pytest.mark.parametrize("jump", [0.5, 9.0])
def test_a_price_outside_the_band_counts_when_fetches_in_a_row_confirm_it(jump: float) -> None:
    for fetches, believed in ((1, 2.0), (2, 2.0), (3, jump)):
        assert good(after(feed(), 2.0, *[jump] * fetches)) == believed


@pytest.mark.parametrize("between", [2.1, 0.0, None, 100.0])
def test_confirmations_do_not_outlast_a_fetch_that_says_otherwise(between: float | None) -> None:
    assert good(after(feed(), 2.0, 9.0, 9.0, between, 9.0, 9.0)) in (2.0, 2.1)


def test_a_fetch_that_fails_confirms_nothing() -> None:
    trust = unreachable(after(feed(), 2.0, 9.0, 9.0))
    assert good(judge(feed(), trust, 9.0, None, 1100)) == 2.0


def test_fetches_that_disagree_confirm_nothing() -> None:
    assert good(after(feed(), 2.0, 9.0, 90.0, 9.0, 90.0, 0.01, 9.0)) == 2.0


def test_no_number_of_fetches_confirms_what_the_configuration_rules_out() -> None:
    bounded = feed(lowest=1, highest=10)
    for lie in (0.99, 10.01):
        trust = after(bounded, 2.0, *[lie] * 50)
        assert good(trust) == 2.0
        assert "plausible" in (trust.refused or "")
        assert after(bounded, lie).good is None


def test_a_feed_that_is_not_believed_makes_its_last_price_stale_and_a_silent_one_does_not() -> None:
    refused = after(feed(), 2.0, 9.0)
    assert refused.good is not None
    assert refused.good.valid_to_s == 1000
    silent = unreachable(after(feed(), 2.0))
    assert silent.good is not None
    assert silent.good.valid_to_s == 1100


def test_the_sentence_of_a_refusal_has_the_figures() -> None:
    assert after(feed(), 2.0, 9.0).refused == (
        "9 USD per GPU-hour is outside 1 to 4, the band around the last good price, 2; "
        "so say 1 of 3 fetches that would confirm it"
    )


@pytest.mark.parametrize(
    ("made_at_s", "believed"),
    [(1000, True), (1060, True), (1061, False), (900, True), (899, False), (NAN, False)],
)
def test_a_price_from_the_future_or_long_ago_is_refused(made_at_s: float, believed: bool) -> None:
    trust = judge(feed(), Trust(), 2.0, made_at_s, 1000)
    assert (trust.good is not None) == believed
    if trust.good is not None:
        assert trust.good.valid_to_s == min(made_at_s, 1000) + 100


@pytest.mark.parametrize(
    ("unit", "figures", "absurd"),
    [
        ("usd_per_kwh", [0.2, -0.4, 0.0, 4.2], 21.0),
        ("g_per_kwh", [400.0, 0.0, 30.0], -1.0),
        ("w", [70.0, 700.0, 0.0], 5001.0),
    ],
)
def test_what_may_be_nothing_or_negative_has_bounds_and_no_band(
    unit: str, figures: list[float], absurd: float
) -> None:
    for count in range(1, len(figures) + 1):
        assert good(after(feed(unit), *figures[:count])) == figures[count - 1]
    assert good(after(feed(unit), *figures, absurd, absurd, absurd)) == figures[-1]
