"""Server-sent events, however the standard lets them be written."""

import json

import pytest

from orchestrator.gateway import sse
from orchestrator.gateway.sse import EventSplitter, Kind, read
from orchestrator.gateway.upstream import UpstreamFailed

VLLM = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def split(*chunks: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_any_of_three_ways_and_leave_in_one(ending: bytes) -> None:
    sent = b"id: 1\ndata: a\n\n: remark\n\n\ndata: b\n\n".replace(b"\n", ending)
    events = [b"id: 1\ndata: a\n\n", b": remark\n\n", b"data: b\n\n"]
    assert split(sent) == events
    assert split(*(sent[i : i + 1] for i in range(len(sent)))) == events


def test_an_event_is_given_when_its_blank_line_is_there() -> None:
    assert split(b"data: a\r\n\r") == [b"data: a\n\n"]
    assert split(b"data: a\n") == []


def test_an_event_has_a_largest_size_in_one_piece_or_in_many() -> None:
    large = b"data: " + b"a" * sse.MAX_EVENT_BYTES
    for chunks in (
        [large + b"\n\n"],
        [large],
        [large[i : i + 2**16] for i in range(0, len(large), 2**16)],
    ):
        with pytest.raises(UpstreamFailed, match="malformed"):
            split(*chunks)


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (VLLM, Kind.CONTENT),
        (b'data:{"choices": [ {"delta": {"content": "a"}} ]}\n\n', Kind.CONTENT),
        (b'id: 7\nevent: message\ndata: {"choices":\ndata: [{"text": "a"}]}\n\n', Kind.CONTENT),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', Kind.CONTENT),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', Kind.PREAMBLE),
        (b": still alive\n\n", Kind.PREAMBLE),
        (b"retry: 10\n\n", Kind.PREAMBLE),
        (b'data: {"choices": [] , "usage": {"prompt_tokens": 1}}\n\n', Kind.USAGE),
        (b'data: {"usage":"odd"}\n\n', Kind.USAGE),
        (b'data: {"choices":[],"usage":null}\n\n', Kind.PREAMBLE),
        (b"data:[DONE]\n\n", Kind.DONE),
        (b"id: 9\ndata: [DONE]\n\n", Kind.DONE),
        (b'data: { "error": {"message": "x"}}\n\n', Kind.ERROR),
        (b"event: error\ndata: gone\n\n", Kind.ERROR),
    ],
)
def test_what_an_event_is(event: bytes, kind: Kind, committed: bool) -> None:
    assert read(event, committed)[0] is kind


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        b"[1]",
        b"null",
        b"7",
        b"[DONE",
        b'{"choices":[1]}',
        b'{"choices":{}}',
        b'{"choices":[{"index":0,"delta":"x"}]}',
        b'{"id":"1","choices":[{"index":0,"delta":{"content":"a"}',
        b'{"choices":[],"usage":{"prompt_tokens":',
        b"\xff",
    ],
)
def test_what_no_engine_should_send_is_a_failed_attempt(data: bytes, committed: bool) -> None:
    with pytest.raises(UpstreamFailed, match="malformed"):
        read(b"data: " + data + b"\n\n", committed)


def test_a_vllm_token_is_told_by_its_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sse.orjson, "loads")
    assert read(VLLM, committed=True) == (Kind.CONTENT, VLLM)


def test_text_that_looks_like_an_event_is_text() -> None:
    said = json.dumps('"choices":[],"usage":{}}]} [DONE] {"error"').encode()
    event = VLLM.replace(b'"a"', said)
    for committed in (True, False):
        assert read(event, committed) == (Kind.CONTENT, event)


def test_usage_is_found_in_any_writing() -> None:
    assert sse.usage(b'data: {"usage":\ndata: {"prompt_tokens": 1}}\n\n') == {"prompt_tokens": 1}


@pytest.mark.parametrize("committed", [True, False])
def test_what_is_passed_on_is_one_line_of_data_and_nothing_beside_it(committed: bool) -> None:
    sent = b': secret\nid: secret\nsecret\ndata:{"choices":\ndata: [{"text": "a"}]}\n\n'
    assert read(sent, committed)[1] == b'data: {"choices": [{"text": "a"}]}\n\n'
    assert read(b"data:[DONE]\n\n", committed)[1] == b"data: [DONE]\n\n"
    for silent in (b": secret\n\n", b"event: error\ndata: secret\n\n"):
        assert read(silent, committed)[1] == b""
