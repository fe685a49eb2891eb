"""Tokens that are told by their bytes, many at a time, are read as each of them is as JSON."""

from collections.abc import Iterator
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.dialects import ENDPOINTS, Asked, Reader
from orchestrator.gateway.dialects.token import Token
from orchestrator.gateway.sse import EventKind, EventSplitter
from orchestrator.gateway.upstream import UpstreamFailed
from tests.unit.test_choices_reader import LAST, chat_token, completion_token, finish
from tests.unit.test_named_readers import STARTED, block_delta, text_delta

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4) | st.sampled_from(
    ["a", " the", "\n", '"']
)
numbers = st.integers(0, 9)
OTHERS = (
    finish(),
    LAST,
    b": still alive\n\n",
    b"\n",
    b"data: [DONE]\n\n",
    chat_token("a").replace(b'"a"', b'"\xc3"'),
    chat_token("a").replace(b'"a"', b'"\xa9"'),
    chat_token("a").replace(b'"logprobs":null', b'"logprobs":1'),
    b"data: {\n\n",
)
choices = st.lists(
    st.builds(chat_token, text, numbers)
    | st.builds(completion_token, text, numbers)
    | st.sampled_from(OTHERS),
    max_size=12,
)
named = st.lists(
    st.builds(block_delta, text, numbers)
    | st.builds(text_delta, text, numbers)
    | st.sampled_from([STARTED, *OTHERS]),
    max_size=12,
)


def in_rows(reader: Reader, events: bytes) -> Iterator[tuple[EventKind, bytes]]:
    splitter, place = EventSplitter(), 0
    events = splitter.feed(events)
    while place < len(events):
        passed_on, end = reader.read_tokens(events, place)
        if end > place:
            yield EventKind.CONTENT, passed_on
            place = end
            continue
        event, place = splitter.event(events, place)
        if event:
            yield reader.read(event)


def read(path: str, asked: Asked, vllm: bool, events: bytes) -> tuple[object, ...]:
    """All that a stream came to."""
    reader = ENDPOINTS[path].reader(asked, vllm)
    kinds, passed_on, failure = set(), b"", ""
    try:
        for kind, part in in_rows(reader, events):
            kinds.add(kind)
            passed_on += part
    except UpstreamFailed as failed:
        failure = failed.reason
    return kinds, passed_on, failure, reader.usage, reader.counted, getattr(reader, "text", "")


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["/v1/chat/completions", "/v1/completions"]),
    choices,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_row_of_choices_is_read_as_its_events(
    path: str, events: list[bytes], vllm: bool, usage: bool, throughout: bool
) -> None:
    asked = Asked(stream=True, wants_usage=usage, wants_usage_throughout=usage and throughout)
    found = read(path, asked, vllm, b"".join(events))
    with patch.object(Token, "learn"):
        assert read(path, asked, vllm, b"".join(events)) == found


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["/v1/messages", "/v1/responses"]), named)
def test_a_row_of_named_events_is_read_as_its_events(path: str, events: list[bytes]) -> None:
    found = read(path, Asked(stream=True), True, b"".join(events))
    with patch.object(Token, "learn"):
        assert read(path, Asked(stream=True), True, b"".join(events)) == found
