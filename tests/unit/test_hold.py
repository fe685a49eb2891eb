"""What is not needed any more is kept for as long as it takes to come, and then given back."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.hold import Excess, kept

KEEP_S, TICK_S = 60.0, 10.0


def targets(
    needed: list[int], held: int = 0, keep_s: float = KEEP_S, tick_s: float = 10
) -> list[int]:
    """Of ticks, one after the other."""
    excess: Excess | None = None
    found = []
    for number, needs in enumerate(needed):
        held, excess = kept(held, needs, excess, keep_s, number * TICK_S)
        found.append(held)
    return found


def test_what_is_needed_is_had_at_once() -> None:
    assert targets([1, 3, 2, 5]) == [1, 3, 3, 5]


def test_what_is_not_needed_any_more_is_kept_as_long_as_provisioning_takes() -> None:
    assert targets([3] + 10 * [1]) == [3] + 6 * [3] + 4 * [1]


def test_what_was_needed_meanwhile_stays() -> None:
    assert targets([5, 1, 1, 3, 1, 1, 1, 1]) == 7 * [5] + [3]


def test_a_need_for_all_of_it_starts_the_time_anew() -> None:
    assert targets([2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]) == 13 * [2] + [1]


def test_what_comes_at_once_is_given_back_at_once() -> None:
    assert targets([3, 1, 1], keep_s=0) == [3, 3, 1], "but for one tick"


def test_what_is_remembered_is_since_when_and_the_most_that_was_needed() -> None:
    held, excess = kept(5, 1, None, KEEP_S, 100)
    assert (held, excess) == (5, Excess(since_s=100, most=1))
    assert kept(5, 3, excess, KEEP_S, 110) == (5, Excess(since_s=100, most=3))
    assert kept(5, 5, excess, KEEP_S, 110) == (5, None)
    assert kept(5, 0, excess, KEEP_S, 160) == (1, None)


@given(st.lists(st.integers(0, 9), max_size=60), st.floats(0, 200))
def test_there_is_never_less_than_is_needed_nor_more_than_ever_was(
    needed: list[int], keep_s: float
) -> None:
    for number, target in enumerate(targets(needed, keep_s=keep_s)):
        assert needed[number] <= target <= max(needed[: number + 1])


@given(st.lists(st.integers(0, 9), max_size=60))
def test_nothing_is_given_back_that_was_needed_within_the_time(needed: list[int]) -> None:
    for number, target in enumerate(targets(needed)):
        assert target >= max(needed[max(number - 6, 0) : number + 1])
