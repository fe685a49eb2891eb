"""Which replica takes a request, by what it has cached and how busy it is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pools.prefix_cache import CAPACITY, PrefixCache
from orchestrator.signals.prefixes import LENGTHS, decode, encode

IDLE = {"a": 0, "b": 0}


def body(*messages: str) -> bytes:
    return json.dumps({"messages": list(messages), "model": "m", "max_tokens": 5}).encode()


def beginnings(*messages: str) -> list[int]:
    return decode(encode(body(*messages)))


QUESTION = "What is it? " * 100
OTHER = "And what is that? " * 100


def test_the_next_turn_of_a_conversation_goes_where_the_last_one_went() -> None:
    cache = PrefixCache(slack=1)
    cache.sent("b", beginnings(QUESTION))
    for _ in range(20):
        assert cache.rank(IDLE, beginnings(QUESTION, "It is this.", "Thanks."))[0] == "b"


def test_another_conversation_goes_where_less_is_cached() -> None:
    cache = PrefixCache(slack=1)
    cache.sent("b", beginnings(QUESTION))
    assert cache.rank(IDLE, beginnings(OTHER))[0] == "a"


def test_the_replica_that_has_read_more_of_the_prompt_is_preferred() -> None:
    cache = PrefixCache(slack=1)
    cache.sent("a", beginnings(QUESTION, QUESTION))
    cache.sent("b", beginnings(QUESTION, OTHER))
    assert cache.rank(IDLE, beginnings(QUESTION, OTHER, "Thanks."))[0] == "b"


def test_a_busy_replica_loses_what_it_has_cached_to_an_idle_one() -> None:
    cache = PrefixCache(slack=2)
    cache.sent("b", beginnings(QUESTION))
    assert cache.rank({"a": 3, "b": 5}, beginnings(QUESTION))[0] == "b"
    assert cache.rank({"a": 3, "b": 6}, beginnings(QUESTION))[0] == "a"


def test_a_short_beginning_that_all_prompts_share_binds_none() -> None:
    cache = PrefixCache(slack=9)
    cache.sent("a", beginnings("You are helpful. " * 20, QUESTION * 3))
    assert cache.rank(IDLE, beginnings("You are helpful. " * 20, OTHER * 3))[0] == "b"


def test_a_replica_that_is_gone_is_forgotten() -> None:
    cache = PrefixCache(slack=1)
    cache.sent("a", beginnings(QUESTION))
    cache.sent("b", beginnings(QUESTION))
    cache.keep(["b"])
    cache.keep(["a", "b"])
    assert cache.rank(IDLE, beginnings(QUESTION))[0] == "b"


def test_memory_is_bounded() -> None:
    cache = PrefixCache(slack=1)
    cache.sent("a", range(CAPACITY))
    cache.sent("a", range(CAPACITY, CAPACITY + 10))
    # It has read more than b, so that only what it still remembers speaks for it.
    assert cache.rank(IDLE, [0])[0] == "b"
    assert cache.rank(IDLE, [CAPACITY])[0] == "a"


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 50), min_size=1),
    st.integers(1, 8),
    st.lists(st.tuples(st.sampled_from("abcd"), st.lists(st.integers(0, 9), max_size=15))),
    st.lists(st.integers(0, 9), max_size=15),
)
def test_nobody_waits_behind_more_than_the_slack(
    loads: dict[str, int], slack: int, sent: list[tuple[str, list[int]]], asked: list[int]
) -> None:
    cache = PrefixCache(slack)
    for replica, sums in sent:
        cache.sent(replica, sums)
    ranked = cache.rank(loads, asked)
    assert sorted(ranked) == sorted(loads)
    assert loads[ranked[0]] <= min(loads.values()) + slack


@given(st.binary(max_size=40_000), st.binary(max_size=2_000))
def test_what_begins_alike_has_the_same_beginnings(start: bytes, rest: bytes) -> None:
    sums, longer = decode(encode(start)), decode(encode(start + rest))
    assert len(sums) == sum(length <= len(start) for length in LENGTHS)
    assert longer[: len(sums)] == sums


@given(st.text(min_size=1, max_size=300))
def test_any_header_is_a_key(header: str) -> None:
    assert 0 < len(decode(header)) <= len(LENGTHS)
