"""Chunks of chat and completion streams, told apart and passed on."""

import json
from typing import Any

import orjson
import pytest

from orchestrator.gateway import sse
from orchestrator.gateway.dialects import Asked
from orchestrator.gateway.dialects.choices_reader import CHAT, COMPLETION, ChoicesReader
from orchestrator.gateway.sse import EventKind
from orchestrator.gateway.upstream import UpstreamFailed
from orchestrator.gateway.usage import Usage

USAGE = '"usage":{"prompt_tokens":6,"total_tokens":%d,"completion_tokens":%d'


def head(kind: str = "chat.completion.chunk") -> str:
    return f'data: {{"id":"chatcmpl-1","object":"{kind}","created":1,"model":"m","choices":['


def chat_token(text: str, number: int = 0, index: int = 0) -> bytes:
    """As vLLM writes it; `number`: of the token, with the usage so far, none for 0."""
    told = (
        "," + USAGE % (6 + number, number) + ',"completion_tokens_details":null}' if number else ""
    )
    said = json.dumps({"content": text}, ensure_ascii=False, separators=(",", ":"))
    choice = f'{{"index":{index},"delta":{said},"logprobs":null,'
    return f'{head()}{choice}"finish_reason":null,"token_ids":null}}]{told}}}\n\n'.encode()


def completion_token(text: str, number: int = 0, index: int = 0) -> bytes:
    told = "," + USAGE % (6 + number, number) + "}" if number else ""
    said = json.dumps(text, ensure_ascii=False)
    choice = f'{{"index":{index},"text":{said},"logprobs":null,"finish_reason":null,'
    more = '"stop_reason":null,"prompt_token_ids":null,"token_ids":null}'
    return f"{head('text_completion')}{choice}{more}]{told}}}\n\n".encode()


def finish(index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": ""}, "finish_reason": "stop"}
    return f"{head()}{json.dumps(choice)}]}}\n\n".encode()


CACHED = ',"prompt_tokens_details":{"cached_tokens":4}}'
LAST = f"{head()}],{USAGE % (9, 3)}{CACHED}}}\n\n".encode()
VLLM = chat_token("a")


def reader(vllm: bool = True, **asked: Any) -> ChoicesReader:
    return ChoicesReader(CHAT, Asked(stream=True, **asked), vllm)


def committed() -> ChoicesReader:
    made = reader()
    made.read(VLLM)
    return made


@pytest.mark.parametrize("make", [reader, committed])
@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (VLLM, EventKind.CONTENT),
        (chat_token("a", 3), EventKind.CONTENT),
        (b'data:{"choices": [ {"delta": {"content": "a"}} ]}\n\n', EventKind.CONTENT),
        (
            b'id: 7\nevent: message\ndata: {"choices":\ndata: [{"text": "a"}]}\n\n',
            EventKind.CONTENT,
        ),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', EventKind.CONTENT),
        (
            b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
            EventKind.PREAMBLE,
        ),
        (b": still alive\n\n", EventKind.PREAMBLE),
        (b"retry: 10\n\n", EventKind.PREAMBLE),
        (b'data: {"choices": [] , "usage": {"prompt_tokens": 1}}\n\n', EventKind.USAGE),
        (b'data: {"usage":"odd"}\n\n', EventKind.USAGE),
        (b'data: {"choices":[],"usage":null}\n\n', EventKind.PREAMBLE),
        (b"data:[DONE]\n\n", EventKind.DONE),
        (b"id: 9\ndata: [DONE]\n\n", EventKind.DONE),
        (b'data: { "error": {"message": "x"}}\n\n', EventKind.ERROR),
        (b"event: error\ndata: gone\n\n", EventKind.ERROR),
    ],
)
def test_what_an_event_is(event: bytes, kind: EventKind, make: Any) -> None:
    assert make().read(event)[0] is kind


@pytest.mark.parametrize("make", [reader, committed])
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
        VLLM[6:-2].replace(b'"a"', b'"\xff"'),
        VLLM[6:-2].replace(b'"a"', b'"\x01"'),
        VLLM[6:-2].replace(b'"a"', b'"\\q"'),
        chat_token("a", 3)[6:-2].replace(b":3,", b":,"),
    ],
)
def test_what_no_engine_should_send_is_a_failed_attempt(data: bytes, make: Any) -> None:
    with pytest.raises(UpstreamFailed, match="malformed"):
        make().read(b"data: " + data + b"\n\n")


@pytest.mark.parametrize(("shape", "token"), [(CHAT, chat_token), (COMPLETION, completion_token)])
@pytest.mark.parametrize("number", [0, 1])
def test_after_the_first_a_vllm_token_is_told_by_its_bytes_alone(
    monkeypatch: pytest.MonkeyPatch, shape: Any, token: Any, number: int
) -> None:
    made = ChoicesReader(shape, Asked(stream=True), vllm=True)
    made.read(token("a", number))
    monkeypatch.delattr(sse.orjson, "loads")
    assert made.read(token(" größer 日本", 2 * number)) == (
        EventKind.CONTENT,
        token(" größer 日本"),
    )
    assert made.text == "a größer 日本"


@pytest.mark.parametrize(
    "text", ['"choices":[],"usage":{}}]} [DONE] {"error"', "\\", '"', "\n", ""]
)
def test_text_that_looks_like_an_event_is_text(text: str) -> None:
    made = reader()
    for number in range(3):
        kind, passed_on = made.read(chat_token(f"a{text}", number + 1))
        assert kind is EventKind.CONTENT
        assert json.loads(passed_on[6:]) == json.loads(chat_token(f"a{text}")[6:])
    assert made.text == f"a{text}" * 3


@pytest.mark.parametrize("make", [reader, committed])
def test_what_is_passed_on_is_one_line_of_data_and_nothing_beside_it(make: Any) -> None:
    sent = b': secret\nid: secret\nsecret\ndata:{"choices":\ndata: [{"text": "a"}]}\n\n'
    assert make().read(sent)[1] == b'data: {"choices": [{"text": "a"}]}\n\n'
    assert make().read(b"data:[DONE]\n\n")[1] == b"data: [DONE]\n\n"
    for silent in (b": secret\n\n", b"event: error\ndata: secret\n\n"):
        assert make().read(silent)[1] == b""


def shown(made: ChoicesReader) -> list[bool]:
    """Of two tokens and the last chunk, whether the client gets their usage."""
    events = (chat_token("a", 1), chat_token("b", 2), LAST)
    return [b'"usage"' in made.read(event)[1] for event in events]


def test_a_client_gets_the_usage_that_it_asked_for() -> None:
    assert shown(reader()) == [False, False, False]
    assert shown(reader(wants_usage=True)) == [False, False, True]
    everywhere = reader(wants_usage=True, wants_usage_throughout=True)
    assert shown(everywhere) == [True, True, True]


def test_usage_beside_the_last_choice_reaches_a_client_that_asked_for_usage() -> None:
    beside = finish().replace(b"]}\n\n", b"],%s}}\n\n" % (USAGE % (9, 3)).encode())
    made = reader(vllm=False, wants_usage=True)
    assert b'"usage"' in made.read(beside)[1]
    assert made.usage == Usage(6, 3, 0)
    assert b'"usage"' not in reader(vllm=False).read(beside)[1]


def test_usage_is_known_at_every_moment_and_the_last_chunk_has_the_last_word() -> None:
    made = reader()
    assert made.usage is None
    made.read(chat_token("a", 1))
    assert made.usage == Usage(6, 1, 0)
    made.read(chat_token("b", 2))
    assert made.usage == Usage(6, 2, 0)
    made.read(LAST)
    assert made.usage == Usage(6, 3, 4)


def test_choices_are_counted_together() -> None:
    made = reader(choices=2)
    for event in (chat_token("a", 1), chat_token("b", 2), chat_token("c", 5, index=1)):
        made.read(event)
    assert made.usage == Usage(6, 7, 0)
    batch = ChoicesReader(COMPLETION, Asked(stream=True, choices=4, prompts=2), vllm=True)
    for index in range(4):
        batch.read(completion_token("a", 1, index))
    assert batch.usage == Usage(12, 4, 0)


@pytest.mark.parametrize("odd", ["[]", "7", '{"prompt_tokens":-1}', '{"prompt_tokens":1e9}'])
def test_odd_usage_is_none(odd: str) -> None:
    made = reader()
    kind, _ = made.read(f'data: {{"choices":[],"usage":{odd}}}\n\n'.encode())
    assert kind is EventKind.USAGE
    assert made.usage is None


def test_an_answer_is_finished_when_every_choice_is() -> None:
    made = reader(choices=2)
    for event in (VLLM, finish(0), chat_token("b", index=1)):
        made.read(event)
        assert not made.finished
    made.read(finish(1))
    assert made.finished


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning": "Hm."},
        {"reasoning_content": "Hm."},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"content": [{"text": "a"}]},
    ],
)
def test_more_than_text_was_said(said: dict[str, Any]) -> None:
    made = reader()
    made.read(VLLM)
    assert made.only_text
    made.read(f"data: {json.dumps({'choices': [{'index': 0, 'delta': said}]})}\n\n".encode())
    assert not made.only_text
    assert made.text == "a"


@pytest.mark.parametrize("text", ["a", 'quoted "a"'])
def test_text_that_comes_twice_is_no_text(text: str) -> None:
    def token(told: int) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
        used = {"prompt_tokens": 3, "total_tokens": 3 + told, "completion_tokens": told}
        chunk = {"id": "x", "choices": [choice], "usage": used}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    reader = ChoicesReader(CHAT, Asked(stream=True), vllm=True)
    for told in (1, 2, 3):
        assert reader.read(token(told))[0] is EventKind.CONTENT
    for repeated in (3, 1):
        with pytest.raises(UpstreamFailed, match="repeated"):
            reader.read(token(repeated))
    assert reader.text == 3 * text
    assert reader.usage == Usage(3, 3, 0)


def test_a_prompt_that_is_given_back_is_no_repetition() -> None:
    made = reader()
    echoed = chat_token("Once upon", 1).replace(b'"completion_tokens":1', b'"completion_tokens":0')
    assert made.read(echoed)[0] is EventKind.CONTENT
    assert made.read(chat_token(" a", 1))[0] is EventKind.CONTENT
