"""Server-sent events as they come from an engine, in any writing that the standard allows."""

from enum import Enum, auto
from typing import Any

import orjson

from orchestrator.gateway.upstream import UpstreamFailed

MAX_EVENT_BYTES = 1024 * 1024
"""Of what an engine says of its own."""
ECHO = 8
"""Bytes that an event may have for each byte of its request: some endpoints give prompts back, as
they came or as token ids."""


def largest_event_bytes(request_bytes: int) -> int:
    return MAX_EVENT_BYTES + ECHO * request_bytes


class EventKind(Enum):
    """What an event is to the relay, in every dialect."""

    PREAMBLE = auto()
    """Says nothing: a role chunk, an empty delta, a comment."""
    CONTENT = auto()
    USAGE = auto()
    """The usage of the whole request, and nothing that is said."""
    ERROR = auto()
    DONE = auto()


class EventSplitter:
    """Cuts a byte stream into whole events, each with its trailing blank line."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """All events that are whole by now. Raises UpstreamFailed for one that is too large before
        it is whole."""
        rest, data = self._rest, self._with_one_line_ending(data)
        data = rest + data if rest else data
        # A blank line may begin in what was left over.
        end = data.rfind(b"\n\n", max(len(rest) - 1, 0)) + 2
        if end < 2:
            if len(data) > self._max_event_bytes:
                raise UpstreamFailed("malformed")
            end = 0
        self._rest = data[end:]
        return data[:end]

    def event(self, events: bytes, start: int) -> tuple[bytes, int]:
        """The event that begins there, empty for a blank line, and where the next one does. Raises
        UpstreamFailed for one that is too large."""
        end = events.find(b"\n\n", start) + 2
        if end < 2:
            return b"", len(events)
        event = events[start:end].lstrip(b"\n")
        if len(event) > self._max_event_bytes:
            raise UpstreamFailed("malformed")
        return event, end

    def _with_one_line_ending(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if data:
            self._after_cr = False
        return data


def fields(event: bytes) -> tuple[bytes, bytes]:
    """The event's name, and its data on one line: to JSON a line end is a space."""
    name = b""
    data: list[bytes] = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return name, b" ".join(data).strip()


def json_object(data: bytes) -> dict[str, Any]:
    """Raises UpstreamFailed for what is none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamFailed("malformed")
    return found


def typed(value: Any, kind: type) -> Any:
    """An absent value as an empty one. Raises UpstreamFailed for one of another type."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UpstreamFailed("malformed")
    return value
