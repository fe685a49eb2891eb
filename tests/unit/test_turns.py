"""One conversation is the same turns in every dialect, and so is every answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.sessions.turns import SYSTEM, Turn, turns

ARGUMENTS = '{"to": "Jürgen", "amount": 5}'
ASCII_ARGUMENTS = '{"to":"J\\u00fcrgen","amount":5}'

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Pay him."},
        {
            "role": "assistant",
            "content": "I will.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "pay", "arguments": ARGUMENTS},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Paid."},
        {"role": "user", "content": [{"type": "text", "text": "Thank you."}]},
    ]
}
RESPONSES: dict[str, Any] = {
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "Pay him."},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"text": "Hm."}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "m",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I will.", "annotations": []}],
        },
        {
            "type": "function_call",
            "call_id": "c1",
            "id": "f",
            "name": "pay",
            "arguments": ASCII_ARGUMENTS,
        },
        {"type": "function_call_output", "call_id": "c1", "output": "Paid."},
        {"role": "user", "content": [{"type": "input_text", "text": "Thank you."}]},
    ],
}
MESSAGES: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": "Pay him."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "ab12"},
                {"type": "text", "text": "I will."},
                {
                    "type": "tool_use",
                    "id": "c1",
                    "name": "pay",
                    "input": {"to": "Jürgen", "amount": 5},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "Paid."},
                {"type": "text", "text": "Thank you."},
            ],
        },
    ],
}


def own(body: dict[str, Any]) -> list[Turn]:
    return [turn for turn in turns(body) if turn.role not in SYSTEM]


def test_a_conversation_has_the_same_turns_in_every_dialect() -> None:
    expected = [
        Turn("user", "Pay him."),
        Turn("assistant", 'I will.\n{"to":"Jürgen","amount":5}', "Hm."),
        Turn("tool", "Paid."),
        Turn("user", "Thank you."),
    ]
    for body in (CHAT, RESPONSES, MESSAGES):
        assert own(body) == expected
        assert [t.text for t in turns(body) if t.role in SYSTEM] == ["Be brief."]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "a"}, ["a"]),
        ({"prompt": ["a", "b"], "suffix": "c"}, ["a", "b", "c"]),
        ({"input": "a"}, ["a"]),
        ({"input": ["a", "b"]}, ["a", "b"]),
        ({"input": [[1, 2], [3]]}, []),
        ({"input": [{"role": "user", "content": "a"}]}, ["a"]),
        ({"messages": [[{"role": "user", "content": "a"}], [{"content": "b"}]]}, ["a", "b"]),
        ({"query": "a", "documents": ["b", {"text": "c"}]}, ["a", "b", "c"]),
        ({"text_1": "a", "text_2": ["b", "c"]}, ["a", "b", "c"]),
        ({"queries": ["a"], "items": ["b"]}, ["a", "b"]),
        ({"data_1": "a", "data_2": {"content": [{"type": "text", "text": "b"}]}}, ["a", "b"]),
        ({"tokens": [1, 2]}, []),
    ],
)
def test_what_is_asked_is_said_by_the_user(body: dict[str, Any], said: list[str]) -> None:
    assert sorted(turn.text for turn in own(body)) == said
    assert {turn.role for turn in own(body)} <= {"user"}


def test_documents_beside_messages_are_the_applications() -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "documents": [{"text": "b"}]}
    assert own(body) == [Turn("user", "a")]
    assert Turn("system", "b") in turns(body)


def test_two_messages_in_a_row_are_two_turns() -> None:
    item = {"type": "message", "role": "assistant", "content": "a"}
    assert own({"input": [item, item]}) == [Turn("assistant", "a")] * 2


def test_an_item_that_nobody_knows_is_kept_all_the_same() -> None:
    assert own({"input": [{"type": "something_new", "text": "a"}]}) == [Turn("tool", "a")]


def test_pictures_are_no_text() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    for part in (
        {"type": "image", "source": source},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    ):
        assert own({"messages": [{"role": "user", "content": [part]}]}) == [Turn("user", "")]


# Answers, which are told by turns too


def answered(path: str, *said: Any) -> list[Turn]:
    answer = ENDPOINTS[path].answer()
    for value in said:
        answer.take(value)
    return answer.turns()


ANSWER = Turn("assistant", 'I will.\n{"to":"Jürgen","amount":5}', "Hm.")


def delta(index: int, **fields: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def test_a_message_says_the_same_as_a_stream_and_as_a_body() -> None:
    content = MESSAGES["messages"][1]["content"]
    assert answered("/v1/messages", {"type": "message", "content": content}) == [ANSWER]
    streamed = answered(
        "/v1/messages",
        {"type": "message_start", "message": {"content": []}},
        start(0, type="thinking", thinking=""),
        delta(0, type="thinking_delta", thinking="H"),
        delta(0, type="thinking_delta", thinking="m."),
        delta(0, type="signature_delta", signature="ab12"),
        {"type": "content_block_stop", "index": 0},
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="I "),
        delta(1, type="text_delta", text="will."),
        start(2, type="tool_use", id="c1", name="pay", input={}),
        delta(2, type="input_json_delta", partial_json=ARGUMENTS[:9]),
        delta(2, type="input_json_delta", partial_json=ARGUMENTS[9:]),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    )
    assert streamed == [ANSWER]


def event(kind: str, place: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": place, **fields}


RESPONSE_STREAM = [
    {"type": "response.created", "response": {"output": []}},
    event("output_item.added", 0, item={"type": "reasoning", "id": "r"}),
    event("reasoning_text.delta", 0, delta="H"),
    event("reasoning_text.delta", 0, delta="m."),
    event("output_item.added", 1, item={"type": "message", "content": []}),
    event("output_text.delta", 1, delta="I "),
    event("output_text.delta", 1, delta="will."),
    event("output_item.added", 2, item={"type": "function_call", "name": "pay"}),
    event("function_call_arguments.delta", 2, delta=ARGUMENTS[:9]),
    event("function_call_arguments.delta", 2, delta=ARGUMENTS[9:]),
]


def test_a_response_says_the_same_as_a_stream_and_as_a_body() -> None:
    items = RESPONSES["input"][1:4]
    assert answered("/v1/responses", {"object": "response", "output": items}) == [ANSWER]
    assert answered("/v1/responses", *RESPONSE_STREAM) == [ANSWER]
    done = [event("output_item.done", n, item=item) for n, item in enumerate(items)]
    assert answered("/v1/responses", *RESPONSE_STREAM, *done) == [ANSWER]


def test_what_tools_of_the_engine_were_asked_is_kept() -> None:
    stream = [
        event("output_item.added", 0, item={"type": "mcp_call", "name": "search"}),
        event("mcp_call_arguments.delta", 0, delta='{"q":"a"}'),
        event("output_item.added", 1, item={"type": "code_interpreter_call"}),
        event("code_interpreter_call_code.delta", 1, delta="print()"),
    ]
    assert [turn.text for turn in answered("/v1/responses", *stream)] == ['{"q":"a"}', "print()"]


def test_the_text_of_tokens_is_an_answer_and_what_only_measures_says_nothing() -> None:
    assert answered("/detokenize", {"prompt": "a b"}) == [Turn("assistant", "a b")]
    for path in ("/tokenize", "/v1/embeddings", "/rerank", "/score", "/v1/messages/count_tokens"):
        assert answered(path, {"prompt": "a", "data": ["b"], "results": [{"text": "c"}]}) == []


FIELDS = (
    "type index output_index item delta content content_block output text input arguments "
    "function role messages prompt tool_calls"
)
TYPES = ["message", "tool_use", "tool_result", "function_call", "reasoning", "x.done"]
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(TYPES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS.split()) | st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.sampled_from(sorted(ENDPOINTS)), st.lists(json, max_size=4))
def test_no_shape_of_an_answer_is_too_odd(path: str, said: list[Any]) -> None:
    answered(path, *said)


@pytest.mark.parametrize("odd", [[], {}, 1, None])
def test_a_type_that_is_none_is_no_type(odd: object) -> None:
    part = {"type": odd, "text": "a"}
    assert own({"messages": [{"role": "user", "content": [part]}]}) == [Turn("user", "a")]
    (turn,) = own({"input": [part]})
    assert "a" in (turn.text, turn.aside)


@given(st.dictionaries(st.sampled_from(["messages", "input", "documents", "query"]), json))
def test_no_shape_of_a_request_is_too_odd(body: dict[str, Any]) -> None:
    turns(body)
