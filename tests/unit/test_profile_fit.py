"""From what was timed to the figures of `performance`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.spec import Performance
from orchestrator.profile.fit import (
    MIN_TOKENS,
    Batch,
    Profile,
    ProfileError,
    Read,
    Timeline,
    batch_of,
    prefill_of,
)

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
RATES = st.floats(100, 1e6)
OVERHEADS = st.floats(0.001, 1)


def reads(tokens_per_s: float, overhead_s: float, rounds: int = 3) -> list[Read]:
    return [
        Read(n, n + r, overhead_s + (n + r) / tokens_per_s) for n in LENGTHS for r in range(rounds)
    ]


def ticking(start_s: float, itl_s: float, tokens: int) -> Timeline:
    return [(start_s + n * itl_s, n + 1) for n in range(tokens)]


@given(RATES, OVERHEADS)
def test_a_prompts_rate_is_found_apart_from_what_every_request_costs(
    tokens_per_s: float, overhead_s: float
) -> None:
    found = prefill_of(reads(tokens_per_s, overhead_s))
    assert found.tokens_per_s == pytest.approx(tokens_per_s, rel=1e-3)
    assert found.overhead_s == pytest.approx(overhead_s, rel=1e-3)


@given(RATES, OVERHEADS, st.integers(0, 17), st.floats(0.1, 100))
def test_one_read_that_was_held_up_changes_little(
    tokens_per_s: float, overhead_s: float, which: int, late_s: float
) -> None:
    given_reads = reads(tokens_per_s, overhead_s)
    late = given_reads[which]
    given_reads[which] = Read(late.length, late.prompt_tokens, late.took_s + late_s)
    found = prefill_of(given_reads)
    assert found.tokens_per_s == pytest.approx(tokens_per_s, rel=1e-3)


def test_where_long_prompts_cost_more_by_the_token_no_request_costs_less_than_nothing() -> None:
    found = prefill_of([Read(n, n, 1e-4 * n + 1e-7 * n**2) for n in LENGTHS])
    assert found.overhead_s == 0
    assert 1 / (1e-4 + 1e-7 * 8192) < found.tokens_per_s < 1 / 1e-4


def test_prompts_that_are_not_read_have_no_rate() -> None:
    with pytest.raises(ProfileError, match="profile the engine itself"):
        prefill_of([Read(n, n, 0.05) for n in LENGTHS])


@given(st.integers(1, 20), st.floats(0.001, 1), st.floats(0, 0.5))
def test_the_pace_of_streams_is_that_while_all_run(
    streams: int, itl_s: float, apart: float
) -> None:
    """Each begins a little later and has not gone on when the last one is there."""
    begun_s = (streams - 1) * apart
    timelines = []
    for number in range(streams):
        early = [(number * apart, 1)] if number * apart < begun_s else []
        steady = [(at_s, tokens + 1) for at_s, tokens in ticking(begun_s, itl_s, 40)]
        timelines.append(early + steady)
    found = batch_of(timelines)
    assert found.itl_s == pytest.approx(itl_s)
    assert found.tokens_per_s == pytest.approx(streams / itl_s)


def test_tokens_that_come_several_at_a_time_are_all_counted() -> None:
    timeline = [(n * 0.1, 1 + n * 5) for n in range(10)]
    assert batch_of([timeline]).itl_s == pytest.approx(0.02)


def test_streams_that_hardly_ran_together_say_nothing() -> None:
    with pytest.raises(ProfileError, match=f"fewer than {MIN_TOKENS} tokens"):
        batch_of([ticking(0, 0.1, 50), ticking(4.5, 0.1, 50)])


def test_the_figures_are_those_of_one_alone_and_of_all_and_say_what_they_miss_between() -> None:
    batches = [Batch(1, 0.010), Batch(2, 0.012), Batch(5, 0.030)]
    found = Profile(reads(10_000, 0.05), batches, kv_cache_tokens=4000)
    assert found.performance("L40S", "measured") == Performance(
        accelerator="L40S",
        prefill_tokens_per_s=10_000,
        decode_tokens_per_s=166.7,
        itl_s=0.01,
        overhead_s=0.05,
        kv_cache_tokens=4000,
        source="measured",
    )
    assert [p.error for p in found.batch_points()] == pytest.approx([0, 0.015 / 0.012 - 1, 0])
    assert [p.at for p in found.read_points()] == [n + 1 for n in LENGTHS]
    assert all(p.error == pytest.approx(0, abs=1e-6) for p in found.read_points())
