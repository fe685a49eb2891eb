"""Whatever an engine calls its usage, accounting goes on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.usage import Usage, read

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)
COUNTS = st.integers(0, 2**53 - 1)


@given(COUNTS, COUNTS, st.none() | st.fixed_dictionaries({"cached_tokens": COUNTS}))
def test_counts_are_taken_as_they_are(
    prompt: int, completion: int, details: dict[str, int] | None
) -> None:
    raw = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": details,
    }
    assert read(raw) == Usage(prompt, completion, details["cached_tokens"] if details else 0)


@given(
    ANYTHING
    | st.fixed_dictionaries(
        {
            "prompt_tokens": ANYTHING | COUNTS,
            "completion_tokens": ANYTHING | COUNTS,
            "prompt_tokens_details": ANYTHING | st.fixed_dictionaries({"cached_tokens": ANYTHING}),
        }
    )
)
def test_what_is_read_can_always_be_counted_with(raw: Any) -> None:
    found = read(raw)
    if found is not None:
        for count in (found.prompt_tokens, found.completion_tokens, found.cached_tokens):
            assert type(count) is int
            assert 0 <= count < 2**53


@pytest.mark.parametrize("odd", ["7", -1, 2**53, [1], None, True, 1.5])
def test_odd_counts_are_no_usage(odd: Any) -> None:
    assert read({"prompt_tokens": odd, "completion_tokens": 1}) is None
    assert read({"prompt_tokens": 1, "completion_tokens": odd}) is None
