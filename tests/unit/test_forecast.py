"""What is expected of a load: from when on, how far ahead, and how surely."""

from collections.abc import Callable, Iterator
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.capacity.forecast import (
    DAY_S,
    DEFAULT_OUTPUT_TOKENS,
    DEFAULT_PROMPT_TOKENS,
    LEARNED,
    SHARES,
    STEP_S,
    Forecast,
    Forecaster,
    forecaster_of,
)
from orchestrator.capacity.load import Load
from tests.worlds import small

MONDAY_S = 4 * DAY_S
"""The epoch began on a Thursday."""
HORIZON_S = 60.0


def forecaster(*workloads: str) -> Forecaster:
    names = workloads or ("chat",)
    return Forecaster(names, [HORIZON_S] * len(names))


def counted(requests: float, prompt_tokens: int = 100, output_tokens: int = 20) -> Load:
    count = int(requests)
    return Load(count, count * prompt_tokens, count, count * output_tokens)


def follow(
    told: Forecaster,
    rps: Callable[[float], float],
    duration_s: float,
    since_s: float = MONDAY_S,
    step_s: float = STEP_S,
    workload: str = "chat",
) -> Iterator[tuple[float, Forecast]]:
    """Times and forecasts under a load that arrives as regularly as it can."""
    for number in range(int(duration_s / step_s) + 1):
        now_s = since_s + number * step_s
        told.observe({workload: counted(rps(now_s) * step_s)}, now_s)
        if workload in told.forecasts():
            yield now_s, told.forecasts()[workload]


def last(*arguments: object, **options: object) -> Forecast:
    *_, (_, forecast) = follow(*arguments, **options)  # type: ignore[arg-type]
    return forecast


def steady(rps: float) -> Callable[[float], float]:
    return lambda now_s: rps


def poisson(rps: Callable[[float], float], step_s: float = STEP_S) -> Callable[[float], float]:
    random = np.random.default_rng(1)
    return lambda now_s: random.poisson(rps(now_s) * step_s) / step_s


def mean(forecast: Forecast) -> float:
    return float(SHARES @ np.array(forecast.rps))


def test_nothing_is_forecast_before_something_is_known() -> None:
    told = forecaster()
    assert not told.forecasts()
    told.observe({}, MONDAY_S)
    told.observe({"chat": counted(1000)}, MONDAY_S + STEP_S / 2)
    assert not told.forecasts()


def test_what_was_counted_while_nobody_listened_is_left_out() -> None:
    """The first that gateways tell is of any length of time."""
    told = forecaster()
    told.observe({"chat": counted(1_000_000)}, MONDAY_S)
    told.observe({"chat": counted(1_000_000)}, MONDAY_S + STEP_S)
    assert not told.forecasts()
    told.observe({"chat": counted(20)}, MONDAY_S + 2 * STEP_S)
    assert mean(told.forecasts()["chat"]) == pytest.approx(2, rel=0.1)


def test_a_steady_rate_is_expected_to_last_with_its_lengths() -> None:
    forecast = last(forecaster(), steady(5), 3600)
    assert forecast.rps == pytest.approx([5] * len(SHARES), rel=0.1)
    assert forecast.prompt_tokens == pytest.approx(100, rel=0.1)
    assert forecast.output_tokens == pytest.approx(20, rel=0.15)
    assert forecast.variation == 1.0, "it never counts as steadier than chance"


def test_shares_of_a_forecast_rise_and_are_all_of_the_time() -> None:
    assert SHARES.sum() == pytest.approx(1)
    for _, forecast in follow(forecaster(), poisson(lambda now_s: 3 + now_s % 700 / 100), 7200):
        assert list(forecast.rps) == sorted(forecast.rps)


def test_chance_alone_is_no_reason_to_expect_peaks() -> None:
    """What is from counting alone is left to queues, and a forecast is about the rate."""
    forecast = last(forecaster(), poisson(steady(5)), 2 * 3600)
    assert forecast.rps[-1] < 1.2 * 5
    assert forecast.variation == pytest.approx(1, abs=0.5)


def test_a_load_that_comes_in_clumps_is_told_apart_from_chance() -> None:
    random = np.random.default_rng(1)
    clumps = last(forecaster(), lambda now_s: 6 * random.poisson(5 * STEP_S / 6) / STEP_S, 2 * 3600)
    assert clumps.variation == pytest.approx(6, rel=0.5)


def test_peaks_that_came_are_expected_to_come_again() -> None:
    def gusty(now_s: float) -> float:
        return 15 if now_s % 1200 < 120 else 5

    gusts, calm = last(forecaster(), gusty, 6 * 3600), last(forecaster(), steady(5), 6 * 3600)
    assert gusts.rps[0] < 6
    assert gusts.rps[-1] > 2 * calm.rps[-1]


def test_a_rate_that_changes_is_followed_within_minutes() -> None:
    def step(now_s: float) -> float:
        return 2 if now_s < MONDAY_S + 3600 else 20

    after = {
        now_s - MONDAY_S - 3600: mean(forecast)
        for now_s, forecast in follow(forecaster(), step, 3600 + 600)
    }
    assert after[0] < 5
    assert after[300] > 15


def test_lulls_have_their_own_spread() -> None:
    """Nights that are steady are no less so for days that are not."""
    random = np.random.default_rng(1)
    gusts = 10 * random.lognormal(0, 0.8, 2 * 720)

    def daily(now_s: float) -> float:
        since_s = now_s - MONDAY_S
        return float(gusts[int(since_s / 120)]) if since_s % DAY_S > DAY_S / 2 else 1

    spreads = {
        now_s - MONDAY_S: forecast.rps[-1] / forecast.rps[0]
        for now_s, forecast in follow(forecaster(), poisson(daily), DAY_S * 4 / 3)
    }
    assert spreads[DAY_S * 4 / 3] < 2.5
    assert max(spread for since_s, spread in spreads.items() if since_s > DAY_S / 2) > 5


def test_a_daily_rise_is_expected_from_the_second_day_on() -> None:
    def daily(now_s: float) -> float:
        return 10 if 9 <= now_s % DAY_S / 3600 < 17 else 1

    before_s = 9 * 3600 - 300
    forecasts = dict(follow(Forecaster(["chat"], [600]), daily, 1.5 * DAY_S, step_s=100))
    first, second = (forecasts[MONDAY_S + day * DAY_S + before_s] for day in (0, 1))
    assert mean(first) == pytest.approx(1, rel=0.2)
    assert mean(second) > 2


def test_silence_and_then_noise_give_finite_numbers() -> None:
    silent = last(forecaster(), steady(0), 3600)
    assert silent.rps == (0,) * len(SHARES)
    assert (silent.prompt_tokens, silent.output_tokens) == (
        DEFAULT_PROMPT_TOKENS,
        DEFAULT_OUTPUT_TOKENS,
    )
    told = forecaster()
    last(told, steady(0), 3600)
    for _, forecast in follow(told, poisson(steady(100)), 3600, since_s=MONDAY_S + 3700):
        assert all(isfinite(rps) and rps >= 0 for rps in forecast.rps)
        assert isfinite(forecast.variation)
    assert mean(forecast) == pytest.approx(100, rel=0.2)


loads = st.builds(
    Load,
    requests=st.integers(0, 10**9),
    prompt_tokens=st.integers(0, 10**12),
    answered=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**12),
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(loads, st.sampled_from([0.0, 1.0, 10.0, 35.0, 4e4])), max_size=60),
    st.floats(1, 1e5),
)
def test_whatever_is_told_gives_finite_numbers(
    ticks: list[tuple[Load, float]], horizon_s: float
) -> None:
    told, now_s = Forecaster(["chat"], [horizon_s]), MONDAY_S
    for load, passed_s in ticks:
        now_s += passed_s
        told.observe({"chat": load}, now_s)
        for forecast in told.forecasts().values():
            assert list(forecast.rps) == sorted(forecast.rps)
            assert all(isfinite(value) and value >= 0 for value in forecast.rps)
            assert all(isfinite(value) and value >= 0 for value in forecast[1:])


def test_each_workload_is_forecast_by_its_own_load() -> None:
    told = forecaster("chat", "search")
    for number in range(100):
        loads = {"chat": counted(50), "search": counted(10), "unheard-of": counted(999)}
        told.observe(loads, MONDAY_S + number * STEP_S)
    forecasts = told.forecasts()
    assert set(forecasts) == {"chat", "search"}
    assert mean(forecasts["chat"]) == pytest.approx(5, rel=0.05)
    assert mean(forecasts["search"]) == pytest.approx(1, rel=0.05)


def test_ticks_between_two_steps_are_added_up() -> None:
    told = forecaster()
    for number in range(601):
        told.observe({"chat": counted(4)}, MONDAY_S + number)
    assert mean(told.forecasts()["chat"]) == pytest.approx(4, rel=0.05)


def test_a_forecast_reaches_as_far_as_the_fastest_place_that_can_be_ordered_takes_to_come() -> None:
    assert list(forecaster_of(small()).horizons_s) == [60, 60]


def test_what_was_learned_is_kept_for_workloads_that_stay() -> None:
    first = forecaster("chat", "gone")
    last(first, poisson(steady(20)), 3600)
    second = forecaster("new", "chat")
    second.learn(first.workloads, first.learned())
    for name in LEARNED:
        theirs, own = first.learned()[name], second.learned()[name]
        fresh = forecaster("new").learned()[name]
        assert np.array_equal(own[1], theirs[0], equal_nan=True)
        assert np.array_equal(own[0], fresh[0], equal_nan=True)
    assert not second.forecasts(), "the rate itself is not of what lasts"


def test_what_was_learned_shows_in_forecasts_from_the_first_step_on() -> None:
    first, second = forecaster(), forecaster()
    last(first, steady(20), 3600)
    second.learn(first.workloads, first.learned())
    forecast = last(second, steady(20), 2 * STEP_S)
    assert forecast.prompt_tokens == pytest.approx(100, rel=0.1)


def test_learning_does_not_tie_two_forecasters_to_each_other() -> None:
    first, second = forecaster(), forecaster()
    last(first, steady(20), 600)
    second.learn(first.workloads, first.learned())
    before = {name: values.copy() for name, values in first.learned().items()}
    last(second, steady(100), 600)
    for name in LEARNED:
        assert np.array_equal(first.learned()[name], before[name], equal_nan=True)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    given = forecaster("chat", "search").learned()
    for name in LEARNED:
        told = forecaster()
        before = {key: values.copy() for key, values in told.learned().items()}
        changed = {key: values[:1] + 1 for key, values in given.items()} | {name: given[name]}
        with pytest.raises(ValueError, match=name):
            told.learn(["chat"], changed)
        for key, values in told.learned().items():
            assert np.array_equal(values, before[key], equal_nan=True)
    with pytest.raises(KeyError):
        forecaster().learn(["chat"], {})


def test_what_is_no_number_is_refused() -> None:
    for broken in (np.nan, np.inf, -1.0):
        told = forecaster()
        learned = {name: values.copy() for name, values in told.learned().items()}
        learned["usual"][:] = broken
        with pytest.raises(ValueError, match="usual"):
            told.learn(["chat"], learned)
