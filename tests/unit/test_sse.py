"""Server-sent events, however the standard lets them be written."""

import pytest

from orchestrator.gateway import sse
from orchestrator.gateway.sse import EventSplitter, fields
from orchestrator.gateway.upstream import UpstreamFailed


def split(*chunks: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [event for chunk in chunks for event in cut(splitter, chunk)]


def cut(splitter: EventSplitter, chunk: bytes) -> list[bytes]:
    found, place = [], 0
    events = splitter.feed(chunk)
    while place < len(events):
        event, place = splitter.event(events, place)
        if event:
            found.append(event)
    return found


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


def test_an_event_may_give_a_large_prompt_back() -> None:
    large = b"data: " + b"a" * 2 * sse.MAX_EVENT_BYTES + b"\n\n"
    splitter = EventSplitter(sse.largest_event_bytes(len(large)))
    assert cut(splitter, large) == [large]


def test_an_event_has_a_name_and_data_on_one_line() -> None:
    assert fields(b": remark\nid: 1\nevent: ping\ndata:{\ndata: }\n\n") == (b"ping", b"{ }")
