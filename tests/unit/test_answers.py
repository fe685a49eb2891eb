"""What an answer said, from its stream or its body, as its client will send it again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.answers import ChoicesAnswer
from orchestrator.sessions.turns import Turn, turns


def said(*chunks: object) -> list[Turn]:
    answer = ChoicesAnswer()
    for chunk in chunks:
        answer.take(chunk)
    return answer.turns()


def delta(number: int = 0, **fields: object) -> dict[str, Any]:
    return {"choices": [{"index": number, "delta": fields}]}


def test_a_stream_and_a_body_say_the_same() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "pay", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "Hello.", "tool_calls": [call]}
    first, rest = (
        {"index": 0, "function": {"name": "pay", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    )
    streamed = said(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo."),
        delta(tool_calls=[first]),
        delta(tool_calls=[rest]),
    )
    assert streamed == said({"choices": [{"index": 0, "message": message}]})
    assert streamed == turns({"messages": [message]})


def test_each_choice_is_a_turn_of_its_own() -> None:
    found = said(delta(0, content="a"), delta(1, content="b"), delta(0, content="a"))
    assert [turn.text for turn in found] == ["aa", "b"]


def test_reasoning_is_kept_beside_what_is_said() -> None:
    (turn,) = said(
        delta(reasoning_content="Hm, "), delta(reasoning_content="so."), delta(content="A")
    )
    assert (turn.text, turn.aside) == ("A", "Hm, so.")


def test_a_completion_is_its_text() -> None:
    assert [t.text for t in said({"choices": [{"index": 0, "text": "once"}]})] == ["once"]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "index", "delta", "message", "tool_calls", "function", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json)
def test_no_shape_of_a_chunk_is_too_odd(chunk: Any) -> None:
    said(chunk)
    said({"choices": [chunk]})
    said({"choices": [{"delta": chunk}]})


@pytest.mark.parametrize("index", [[1], {}, None, "0", 1.5])
def test_an_odd_number_of_a_tool_call_is_taken_for_its_place(index: object) -> None:
    call = {"index": index, "function": {"arguments": "x"}}
    assert [t.text for t in said(delta(tool_calls=[call]))] == ["x"]
