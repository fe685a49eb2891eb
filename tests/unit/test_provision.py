"""When a scale-up is given up, and when it is tried again."""

from orchestrator.capacity.provision import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    NOTHING_ORDERED,
    SETTLE_S,
    Progress,
    Provision,
    follow_up,
)

LIMIT_S = 180
FAILED = Progress(failed="no such model", abandoned=True)


def after(
    seconds: int,
    before: Provision = NOTHING_ORDERED,
    *,
    ordered: int = 1,
    ready: int = 0,
    progress: Progress | None = None,
    start_s: float = 1000,
) -> Provision:
    for second in range(seconds + 1):
        before = follow_up(
            before, ordered, ready, progress or Progress(), LIMIT_S, start_s + second
        )
    return before


def test_a_scale_up_that_brings_nothing_is_given_up_at_its_limit() -> None:
    assert not after(LIMIT_S).given_up(1000 + LIMIT_S)
    given_up = after(LIMIT_S + 1)
    assert given_up.given_up(1000 + LIMIT_S + 1)
    assert "no replica more" in given_up.reason


def test_every_replica_that_comes_gives_it_its_time_again() -> None:
    waiting = after(LIMIT_S - 1, ordered=3)
    waiting = after(LIMIT_S - 1, waiting, ordered=3, ready=1, start_s=1000 + LIMIT_S)
    assert waiting.retry_at_s == 0
    assert after(5, waiting, ordered=3, ready=1, start_s=1000 + 2 * LIMIT_S).failures == 1


def test_what_the_cluster_gives_up_is_given_up_as_soon_as_that_can_be_about_this_order() -> None:
    assert after(SETTLE_S - 1, progress=FAILED).failures == 0
    given_up = after(SETTLE_S, progress=FAILED)
    assert (given_up.failures, given_up.reason) == (1, "no such model")


def test_pauses_double_until_a_replica_comes() -> None:
    state, now_s, pauses = NOTHING_ORDERED, 1000.0, []
    for _ in range(8):
        state = after(SETTLE_S, state, progress=FAILED, start_s=now_s)
        pauses.append(state.retry_at_s - now_s - SETTLE_S)
        now_s = state.retry_at_s
    assert pauses == [60, 120, 240, 480, 960, 1920, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert after(0, state, ready=1, start_s=now_s) == NOTHING_ORDERED


def test_a_failure_is_remembered_from_one_burst_to_the_next_but_not_for_good() -> None:
    failed = after(SETTLE_S, progress=FAILED)
    idle = after(0, failed, ordered=0, start_s=failed.retry_at_s + LONGEST_PAUSE_S)
    again = after(SETTLE_S, idle, progress=FAILED, start_s=idle.retry_at_s + 5)
    assert again.retry_at_s - (idle.retry_at_s + 5) - SETTLE_S == 2 * FIRST_PAUSE_S
    late_s = failed.retry_at_s + LONGEST_PAUSE_S + 1
    assert after(0, failed, ordered=0, start_s=late_s) == NOTHING_ORDERED
