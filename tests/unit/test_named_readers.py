"""Streams whose events have names: messages and responses, told apart and passed on."""

import json
from typing import Any

import pytest

from orchestrator.gateway import sse
from orchestrator.gateway.dialects import ENDPOINTS, Asked, Reader
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.sse import EventKind
from orchestrator.gateway.upstream import UpstreamFailed
from orchestrator.gateway.usage import Usage

LOST = ApiError(502, "stream_interrupted", "The replica was lost.", "server_error")


def event(value: dict[str, Any]) -> bytes:
    """As vLLM writes it."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {value['type']}\ndata: {data}\n\n".encode()


def block_delta(text: str, index: int = 0) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return event({"type": "content_block_delta", "delta": delta, "index": index})


def block_start(block: dict[str, Any], index: int = 0) -> bytes:
    return event({"type": "content_block_start", "content_block": block, "index": index})


def message_start(**usage: int) -> bytes:
    return event({"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}})


def message_end(**usage: int) -> bytes:
    return event(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage or None}
    )


def text_delta(text: str, number: int) -> bytes:
    return event(
        {
            "content_index": 0,
            "delta": text,
            "item_id": "msg_1",
            "logprobs": [],
            "output_index": 0,
            "sequence_number": number,
            "type": "response.output_text.delta",
        }
    )


def response(kind: str, **fields: Any) -> bytes:
    return event({"response": {"id": "r", **fields}, "type": f"response.{kind}"})


STOP = event({"type": "message_stop"})
STARTED = message_start(input_tokens=7, output_tokens=0)
CREATED = response("created", usage=None)
DONE = response(
    "completed",
    usage={
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 2,
        "total_tokens": 9,
    },
)


def messages() -> Reader:
    return ENDPOINTS["/v1/messages"].reader(Asked(stream=True), vllm=True)


def responses() -> Reader:
    return ENDPOINTS["/v1/responses"].reader(Asked(stream=True), vllm=True)


def kinds(reader: Reader, *events: bytes) -> list[EventKind]:
    return [reader.read(e)[0] for e in events]


def test_a_message_is_read_to_its_end() -> None:
    reader = messages()
    events = [
        STARTED,
        block_start({"type": "text", "text": ""}),
        block_delta("a"),
        block_delta(" b"),
        event({"type": "content_block_stop", "index": 0}),
    ]
    assert kinds(reader, *events) == [
        EventKind.PREAMBLE,
        EventKind.PREAMBLE,
        EventKind.CONTENT,
        EventKind.CONTENT,
        EventKind.PREAMBLE,
    ]
    assert (reader.usage, reader.counted, reader.finished) == (None, Usage(7, 2, 0), False)
    assert kinds(reader, message_end(input_tokens=7, output_tokens=2)) == [EventKind.CONTENT]
    assert reader.finished
    assert kinds(reader, STOP) == [EventKind.DONE]
    assert reader.usage == Usage(7, 2, 0)


def test_a_response_is_read_to_its_end() -> None:
    reader = responses()
    added = {"type": "response.output_item.added", "item": {"type": "message", "content": []}}
    part = {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}
    events = [CREATED, response("in_progress"), event(added), event(part)]
    assert set(kinds(reader, *events)) == {EventKind.PREAMBLE}
    assert set(kinds(reader, text_delta("a", 4), text_delta("b", 5))) == {EventKind.CONTENT}
    assert (reader.usage, reader.counted, reader.finished) == (None, Usage(0, 2, 0), False)
    assert kinds(reader, DONE) == [EventKind.DONE]
    assert (reader.usage, reader.finished) == (Usage(7, 2, 4), True)


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (messages, block_start({"type": "tool_use", "id": "1", "name": "f", "input": {}})),
        (messages, block_start({"type": "redacted_thinking", "data": "x"})),
        (
            responses,
            event(
                {
                    "type": "response.output_item.added",
                    "item": {"type": "function_call", "name": "f"},
                }
            ),
        ),
        (responses, event({"type": "response.reasoning_text.delta", "delta": "Hm."})),
        (messages, event({"type": "something_new", "delta": "x"})),
    ],
)
def test_what_says_something_is_content(make: Any, read: bytes) -> None:
    assert kinds(make(), read) == [EventKind.CONTENT]


@pytest.mark.parametrize(
    ("make", "end"), [(messages, STOP), (responses, DONE), (responses, response("incomplete"))]
)
def test_an_answer_that_says_nothing_has_an_end_all_the_same(make: Any, end: bytes) -> None:
    reader = make()
    reader.read(message_end(input_tokens=1, output_tokens=0) if make is messages else CREATED)
    assert kinds(reader, end) == [EventKind.DONE]
    assert reader.finished


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (messages, b'event: error\ndata: {"type":"error","error":{"message":"secret"}}\n\n'),
        (responses, b'event: error\ndata: {"type":"error","message":"secret"}\n\n'),
        (responses, b'data: {"type":"error","message":"secret"}\n\n'),
        (responses, response("failed", error={"message": "secret"})),
    ],
)
def test_an_error_of_the_engine_is_not_passed_on(make: Any, read: bytes) -> None:
    assert make().read(read) == (EventKind.ERROR, b"")


@pytest.mark.parametrize("make", [messages, responses])
@pytest.mark.parametrize(
    "data", [b"[1]", b"{}", b'{"type":7}', b'{"type":"a b"}', b'{"type":"a\\nevent: b"}']
)
def test_what_no_engine_should_send_is_a_failed_attempt(make: Any, data: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="malformed"):
        make().read(b"data: " + data + b"\n\n")


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (messages, {"type": "message_start", "message": 1}),
        (messages, {"type": "message_delta", "delta": []}),
        (messages, {"type": "content_block_start", "content_block": "x"}),
        (responses, {"type": "response.completed", "response": 7}),
        (responses, {"type": "response.output_item.added", "item": "x"}),
    ],
)
def test_so_is_a_field_of_another_type(make: Any, read: dict[str, Any]) -> None:
    with pytest.raises(UpstreamFailed, match="malformed"):
        make().read(event(read))


@pytest.mark.parametrize(
    ("make", "tokens"),
    [
        (messages, [block_delta(t, 3) for t in ("a", " größer")]),
        (responses, [text_delta(t, n) for n, t in enumerate(("a", " größer"), 9)]),
    ],
)
def test_after_the_first_a_vllm_token_is_told_by_its_bytes_alone(
    monkeypatch: pytest.MonkeyPatch, make: Any, tokens: list[bytes]
) -> None:
    reader = make()
    assert reader.read(tokens[0]) == (EventKind.CONTENT, tokens[0])
    monkeypatch.delattr(sse.orjson, "loads")
    assert reader.read(tokens[1]) == (EventKind.CONTENT, tokens[1])


@pytest.mark.parametrize("text", ['"},"index":0}', "\\", '"', "\n", ""])
def test_text_that_looks_like_an_event_is_text(text: str) -> None:
    for reader, tokens in (
        (messages(), [block_delta(text)] * 3),
        (responses(), [text_delta(text, n) for n in range(3)]),
    ):
        assert [reader.read(token) for token in tokens] == [(EventKind.CONTENT, t) for t in tokens]


@pytest.mark.parametrize("make", [messages, responses])
def test_what_is_passed_on_is_a_name_and_data_and_nothing_beside_them(make: Any) -> None:
    reader = make()
    for _ in range(2):
        sent = (
            b": secret\nid: secret\nevent: secret\nsecret\n" + block_delta("a").split(b"\n", 1)[1]
        )
        assert reader.read(sent) == (EventKind.CONTENT, block_delta("a"))
    assert reader.read(b": secret\n\n") == (EventKind.PREAMBLE, b"")


def test_cached_tokens_are_part_of_the_prompt() -> None:
    reader = messages()
    reader.read(message_start(input_tokens=3, cache_read_input_tokens=4, output_tokens=0))
    assert reader.counted == Usage(7, 0, 4)
    reader.read(message_end(output_tokens=2))
    assert reader.usage == Usage(7, 2, 4)


@pytest.mark.parametrize("odd", [{"input_tokens": -1}, {"input_tokens": 1, "output_tokens": "2"}])
def test_odd_usage_is_none(odd: dict[str, Any]) -> None:
    reader = messages()
    reader.read(message_end(**odd))
    assert reader.usage is None
    reader = responses()
    reader.read(response("completed", usage=odd))
    assert reader.usage is None


def test_a_stream_that_breaks_off_ends_typed_in_its_own_dialect() -> None:
    name, data = sse.fields(messages().interruption(LOST))
    assert name == b"error"
    assert json.loads(data)["error"]["type"] == "api_error"
    reader = responses()
    reader.read(CREATED)
    reader.read(text_delta("a", 1))
    reader.read(text_delta("b", 2))
    name, data = sse.fields(reader.interruption(LOST))
    assert name == b"error"
    assert json.loads(data) == {
        "type": "error",
        "code": "stream_interrupted",
        "message": "The replica was lost.",
        "param": None,
        "sequence_number": 3,
    }
