"""Server-sent events of a completion stream, told apart with the least work per token.

What comes in may use all that the standard allows. What is passed on is one `data:` line per event,
which every client understands, and nothing else that an upstream may have put beside it.
"""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import orjson

from orchestrator.gateway.upstream import UpstreamFailed

MAX_EVENT_BYTES = 1024 * 1024


class Kind(Enum):
    PREAMBLE = auto()
    """Says nothing: a role chunk, an empty delta, a comment."""
    CONTENT = auto()
    USAGE = auto()
    """The last chunk with the usage of the whole request and no choices."""
    ERROR = auto()
    DONE = auto()


class EventSplitter:
    """Cuts a byte stream into whole events, each with its trailing blank line."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises UpstreamFailed for an event that is too large."""
        rest, data = self._rest, self._with_one_line_ending(data)
        # A blank line may begin in what was left over.
        end, start = max(len(rest) - 1, 0), 0
        data = rest + data
        while (end := data.find(b"\n\n", end)) >= 0:
            event = data[start : end + 2].lstrip(b"\n")
            start = end = end + 2
            if len(event) > MAX_EVENT_BYTES:
                raise UpstreamFailed("malformed")
            if event:
                yield event
        self._rest = data[start:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamFailed("malformed")

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


def read(event: bytes, committed: bool) -> tuple[Kind, bytes]:
    """What an event is, and what of it is passed on. Raises UpstreamFailed for one that no engine
    should send.

    Before the first token each is parsed; after it, the very bytes of a vLLM token are enough.
    """
    if committed and _is_vllm_token(event):
        return Kind.CONTENT, event
    name, data = _fields(event)
    if name == b"error":
        return Kind.ERROR, b""
    if not data:
        return Kind.PREAMBLE, b""
    kind = Kind.DONE if data == b"[DONE]" else _kind(_object(data))
    return kind, b"data: " + data + b"\n\n"


def usage(event: bytes) -> object:
    return _object(_fields(event)[1]).get("usage")


def _kind(chunk: dict[str, Any]) -> Kind:
    if chunk.get("error"):
        return Kind.ERROR
    choices = _typed(chunk.get("choices"), list)
    if choices:
        return Kind.CONTENT if _says_something(choices) else Kind.PREAMBLE
    return Kind.PREAMBLE if chunk.get("usage") is None else Kind.USAGE


def _is_vllm_token(event: bytes) -> bool:
    # Within a JSON string quotes are escaped: these can only be fields.
    return (
        event.startswith(b'data: {"id":"')
        and event.endswith(b"}]}\n\n")
        and b'"choices":[{"index":' in event
        and (b'"delta":{' in event or b'"text":"' in event)
        and event.find(b"\n") == len(event) - 2
    )


def _fields(event: bytes) -> tuple[bytes, bytes]:
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


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamFailed("malformed")
    return found


def _typed(value: Any, kind: type) -> Any:
    """An absent value as an empty one."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise UpstreamFailed("malformed")
    return value


def _says_something(choices: list[Any]) -> bool:
    for choice in (_typed(c, dict) for c in choices):
        delta = _typed(choice.get("delta"), dict)
        if choice.get("finish_reason") or choice.get("text"):
            return True
        if any(value for key, value in delta.items() if key != "role"):
            return True
    return False
