"""However an engine's stream arrives or is spoiled: text is passed on once, and ends clearly."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.classify import Classification, Classifier
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import ClassifierSpec
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.request import parse
from orchestrator.gateway.rules import Rules
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import UpstreamFailed
from orchestrator.ledger.usage import UsageRecord
from orchestrator.policy.view import View
from orchestrator.sessions.turns import Turn
from tests.worlds import small, snapshot

CALLER = Caller("aaaaaaaa", "records")
REQUEST = parse("/v1/chat/completions", b'{"model":"m","messages":[1],"stream":true}')
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
RULES = Rules(small(), Classifier(ClassifierSpec(), {}), Path())
EXCHANGE = SimpleNamespace(
    rules=RULES,
    catalogue=RULES.catalogue,
    view=View(RULES.catalogue, snapshot(), "g"),
    snapshot_age_s=0.0,
)
LABELS = Labels(
    DataClass.PUBLIC, DataClass.PUBLIC, Classification(DataClass.PUBLIC), conversation=None
)


@dataclass(frozen=True)
class Stream:
    """What an engine sends: its events and what they say."""

    events: list[bytes]
    text: str

    @property
    def with_usage(self) -> int:
        """Bytes up to the end of the usage event, the last but one."""
        return sum(map(len, self.events[:-1]))


@dataclass
class Outcome:
    """What the client got, and what was recorded."""

    sent: bytes = b""
    ended: bool = False
    refused: ApiError | None = None
    records: list[UsageRecord] = field(default_factory=list)
    remembered: str = ""
    """Of the answer, for its conversation to be known by."""
    remembered_before_end: str = ""


def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """As vLLM writes it."""
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**about, "choices": choices, **more}


def delta(said: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return chunk([{"index": 0, "delta": said, "logprobs": None, "finish_reason": reason}])


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    space = draw(st.sampled_from([" ", ""]))
    layout: dict[str, Any] = draw(
        st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}, {"ensure_ascii": False}])
    )
    noise = draw(st.sampled_from(["", ": ping\n\n", "id: 3\n", "event: message\n"]))
    tokens = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6))

    def event(data: str) -> bytes:
        lines = "".join(f"data:{space}{line}\n" for line in data.split("\n"))
        # Text may hold a CR or LF only as an escape, so that this touches line ends alone.
        return f"{noise}{lines}\n".replace("\n", ending).encode()

    chunks = [
        delta({"role": "assistant", "content": ""}),
        *(delta({"content": token}) for token in tokens),
        delta({"content": ""}, "stop"),
        chunk([], usage=USAGE),
    ]
    events = [event(json.dumps(value, **layout)) for value in chunks]
    return Stream([*events, event("[DONE]")], "".join(tokens))


GARBAGE = st.binary(max_size=40) | st.sampled_from(
    [
        b"\n\n",
        b"<html>\n\n",
        b"data: [1]\n\n",
        b'data: {"choices":[{"index":0,"delta":"x"}]}\n\n',
        b'data: {"error": {"message": "secret"}}\n\n',
        b"event: error\r\ndata: secret\r\n\r\n",
    ]
)


def pieces(data: bytes, cuts: set[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def relayed(chunks: list[bytes], end: UpstreamFailed | None) -> Outcome:
    """What becomes of an answer of these bytes and this end; None: the connection is closed."""
    outcome = Outcome()
    left = list(chunks)

    async def next_chunk(_: float) -> bytes:
        if left:
            return left.pop(0)
        if end is not None:
            raise end
        return b""

    async def send(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(status=200, chunk=next_chunk, close=lambda: None)

    async def to_client(message: Any) -> None:
        assert not outcome.ended, "nothing follows the end"
        if message["type"] == "http.response.body":
            outcome.sent += message["body"]
            outcome.ended = not message["more_body"]
            outcome.remembered_before_end = outcome.remembered

    async def inside() -> None:
        def remember(_: Labels, answer: Sequence[Turn] = ()) -> Future[None]:
            outcome.remembered += "".join(turn.text for turn in answer)
            done: Future[None] = Future()
            done.set_result(None)
            return done

        telemetry = Telemetry()
        telemetry.inflight.follow(RULES.catalogue)
        relay = Relay(
            EXCHANGE,  # type: ignore[arg-type]
            Admission(10),
            SimpleNamespace(send=send),  # type: ignore[arg-type]
            SimpleNamespace(raises=lambda *_: True, remember=remember, remember_answer=remember),  # type: ignore[arg-type]
            SimpleNamespace(decided=lambda *_: True, used=outcome.records.append),  # type: ignore[arg-type]
            telemetry,
        )
        now_s = asyncio.get_running_loop().time()
        call = Call("id", CALLER, lambda: CALLER, RULES, LABELS, "", REQUEST, to_client, now_s)
        try:
            await relay.run(call)
        except ApiError as error:
            outcome.refused = error

    asyncio.run(inside())
    return outcome


def read(sent: bytes) -> tuple[str, list[str]]:
    """The text, and what else there was, as any client reads it: the error's code or `[DONE]`."""
    text, others = "", []
    for event in sent.decode().split("\n\n")[:-1]:
        data = "\n".join(
            line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")
        )
        if data == "[DONE]":
            others.append(data)
        elif data:
            value = json.loads(data)
            if "error" in value:
                others.append(value["error"]["code"])
            for choice in value.get("choices", []):
                text += choice["delta"].get("content", "")
    return text, others


@settings(max_examples=300, deadline=None)
@given(streams(), st.sets(st.integers(0, 2000), max_size=30))
def test_a_whole_stream_passes_whole_however_it_is_cut_into_pieces(
    stream: Stream, cuts: set[int]
) -> None:
    outcome = relayed(pieces(b"".join(stream.events), cuts), None)
    assert read(outcome.sent) == (stream.text, ["[DONE]"])
    assert outcome.remembered == stream.text
    (record,) = outcome.records
    assert (record.outcome, record.usage_source) == ("complete", "engine")
    assert (record.prompt_tokens, record.completion_tokens) == (11, 7)


@settings(max_examples=700, deadline=None)
@given(
    streams(),
    st.sets(st.integers(0, 2000), max_size=10),
    st.integers(0, 2000),
    GARBAGE,
    st.sampled_from([None, UpstreamFailed("cut"), UpstreamFailed("stalled")]),
)
def test_a_spoiled_stream_passes_a_beginning_once_and_ends_typed(
    stream: Stream, cuts: set[int], end: int, garbage: bytes, failure: UpstreamFailed | None
) -> None:
    whole = b"".join(stream.events)
    end = min(end, len(whole))
    outcome = relayed(pieces(whole[:end] + garbage, cuts), failure)
    text, others = read(outcome.sent)
    assert stream.text.startswith(text)
    # What the client has, it may quote; more than that it may have been is remembered too.
    assert outcome.remembered.startswith(text)
    assert not outcome.ended or outcome.remembered_before_end.startswith(text)
    assert b"secret" not in outcome.sent
    if outcome.refused is not None:
        assert outcome.refused.status == 503
        assert outcome.sent == b""
    else:
        assert outcome.ended
        assert others in (["[DONE]"], ["stream_interrupted"])
        assert others == ["[DONE]"] or outcome.sent.endswith(b"}\n\n")
    if end >= stream.with_usage:
        assert outcome.records[-1].usage_source == "engine"
        assert outcome.records[-1].prompt_tokens == 11
        assert text == stream.text


def test_the_streams_are_what_vllm_sends() -> None:
    assert json.dumps(delta({"content": "a"}), separators=(",", ":")) == (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}'
    )
    with pytest.raises(json.JSONDecodeError):
        read(b"data: {\n\n")
