"""How many lines may be open: by idle slots, by price, and by what deadlines ask for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.batch.schedule import Room, Work, idle, needed
from orchestrator.config.spec import Batch as Rules

UNKNOWN = float("nan")


def room(
    urgent: float = 0,
    slots: float = 10,
    queued: bool = False,
    paid_for: bool = True,
    usd: float = UNKNOWN,
    usd_per_million: float = UNKNOWN,
) -> Room:
    return Room("p/v", slots, urgent, queued, paid_for, usd, usd_per_million)


def test_lines_take_what_is_idle_but_for_the_share_that_is_kept_free() -> None:
    assert idle(room(), Rules()) == 8
    assert idle(room(urgent=5), Rules()) == 3
    assert idle(room(urgent=8), Rules()) == 0
    assert idle(room(urgent=50), Rules()) == 0
    assert idle(room(), Rules(keep_free=0)) == 10


def test_where_requests_wait_for_a_slot_nothing_is_idle() -> None:
    assert idle(room(queued=True), Rules()) == 0


def test_where_it_is_cheap_lines_take_every_free_slot() -> None:
    cheap = Rules(usd_per_gpu_hour_below=1)
    assert idle(room(urgent=5, usd=0.9), cheap) == 5
    assert idle(room(urgent=5, usd=1), cheap) == 3
    assert idle(room(urgent=5), cheap) == 3


def test_what_is_rented_is_left_alone_until_it_is_cheap() -> None:
    rented = {"paid_for": False}
    assert idle(room(**rented, usd=0.5), Rules()) == 0
    assert idle(room(**rented, usd=0.5), Rules(usd_per_gpu_hour_below=0.6)) == 10
    assert idle(room(**rented, usd=0.7), Rules(usd_per_gpu_hour_below=0.6)) == 0
    by_tokens = Rules(usd_per_million_tokens_below=2)
    assert idle(room(**rented, usd_per_million=1), by_tokens) == 10
    assert idle(room(**rented, usd_per_million=3), by_tokens) == 0


def test_nothing_is_urgent_while_there_is_time() -> None:
    assert needed([Work(100, 86_400, 10)], 8, 0) == 0


def test_what_is_late_gets_everything() -> None:
    assert needed([Work(100, 50, 10)], 8, 0) == 8
    assert needed([Work(3, 50, 10)], 8, 45) == 3
    assert needed([Work(3, 50, 10)], 8, 51) == 3


def test_the_batch_that_is_due_is_urgent_and_not_the_next() -> None:
    assert needed([Work(2, 22, 10), Work(500, 1e6, 10)], 8, 10) == 2


def test_nothing_left_needs_nothing() -> None:
    assert needed([], 8, 0) == 0
    assert needed([Work(0, 10, 10)], 8, 20) == 0


works = st.builds(
    Work,
    left=st.integers(0, 500),
    deadline_s=st.floats(0, 1e5),
    line_s=st.floats(0.01, 100),
)


@settings(deadline=None)
@given(st.lists(works, max_size=5), st.integers(1, 100), st.floats(0, 1e5), st.floats(0, 1e4))
def test_urgency_only_rises_with_time_and_has_its_bounds(
    batches: list[Work], concurrency: int, now_s: float, later_s: float
) -> None:
    first = needed(batches, concurrency, now_s)
    assert 0 <= first <= min(concurrency, sum(work.left for work in batches))
    assert first <= needed(batches, concurrency, now_s + later_s)


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0, 200), st.floats(0, 1), st.booleans(), st.floats(0.01, 10))
def test_lines_never_take_a_slot_that_is_kept_or_taken(
    slots: float, urgent: float, keep_free: float, paid_for: bool, usd: float
) -> None:
    lines = idle(room(urgent, slots, paid_for=paid_for, usd=usd), Rules(keep_free=keep_free))
    assert lines == 0 or (paid_for and lines + urgent <= slots * (1 - keep_free))


@pytest.mark.parametrize("batches", [1, 3])
@settings(deadline=None)
@given(data=st.data())
def test_every_deadline_that_can_be_kept_with_half_of_the_slots_is_kept(
    batches: int, data: st.DataObject
) -> None:
    """With no idle slot at all: lines are open because they are urgent, and for nothing else."""
    concurrency = data.draw(st.integers(1, 20))
    line_s = data.draw(st.floats(0.5, 20))
    left: list[int] = []
    deadlines: list[float] = []
    for _ in range(batches):
        left.append(data.draw(st.integers(1, 60)))
        spare = data.draw(st.floats(1, 5))
        # Whole rounds of lines, in half of the slots, and what is kept at the end.
        rounds = math.ceil(sum(left) / (concurrency / 2))
        deadlines.append(spare * (rounds + 4) * line_s)
    ends: list[tuple[float, int]] = []
    now_s, tick_s = 0.0, line_s / 4
    while any(left) or ends:
        for end in [e for e in ends if e[0] <= now_s]:
            ends.remove(end)
            assert end[0] <= deadlines[end[1]]
        running = [sum(1 for e in ends if e[1] == b) for b in range(batches)]
        open_works = [Work(left[b] + running[b], deadlines[b], line_s) for b in range(batches)]
        due = needed(open_works, concurrency, now_s) - len(ends)
        for b in sorted(range(batches), key=lambda b: deadlines[b]):
            opened = max(0, min(due, left[b]))
            left[b] -= opened
            due -= opened
            ends += [(now_s + line_s, b)] * opened
        now_s += tick_s
