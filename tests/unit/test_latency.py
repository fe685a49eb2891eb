"""Windows of latencies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signals.latency import SLICES, LatencyWindow, mean, quantile

WINDOW_S = 10.0


def test_a_window_has_what_was_added_within_it_and_not_what_is_older_by_a_slice() -> None:
    window = LatencyWindow(WINDOW_S)
    window.add([9.0], 0)
    window.add([1.0], 5)
    assert window.merged(WINDOW_S).count == 2
    assert window.merged(WINDOW_S * (1 + 1 / SLICES) + 0.1).count == 1
    assert quantile(window.merged(2 * WINDOW_S + 7), 0.5) is None


def test_ages_of_those_who_wait_count_once_only() -> None:
    window = LatencyWindow(WINDOW_S)
    window.add([1.0], 0)
    assert mean(window.merged(1, [3.0])) == pytest.approx(2)
    assert mean(window.merged(1)) == pytest.approx(1)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.lists(st.floats(0.01, 60), max_size=5)), max_size=40),
    st.floats(0, 20),
)
def test_it_never_lacks_what_is_young_nor_has_what_is_too_old(
    added: list[tuple[float, list[float]]], later_s: float
) -> None:
    window, now_s = LatencyWindow(WINDOW_S), 0.0
    at: list[float] = []
    for gap_s, values_s in added:
        now_s += gap_s
        window.add(values_s, now_s)
        at += [now_s] * len(values_s)
        window.merged(now_s)
    now_s += later_s
    count = window.merged(now_s).count
    assert count >= sum(s >= now_s - WINDOW_S for s in at)
    assert count <= sum(s >= now_s - WINDOW_S * (1 + 2 / SLICES) for s in at)


def test_many_reports_in_a_window_are_held_in_few_sketches() -> None:
    window = LatencyWindow(WINDOW_S)
    for number in range(1000):
        window.add([1.0], number / 100)
    assert window.merged(WINDOW_S).count == 1000
    assert len(window._slices) <= SLICES + 1
