"""Server-sent events of a completion stream, told apart with the least work per token."""

from collections.abc import Iterator
from enum import Enum, auto

import orjson


class Kind(Enum):
    PREAMBLE = auto()
    """Says nothing yet: a role chunk, an empty delta, a comment."""
    CONTENT = auto()
    USAGE = auto()
    """The last chunk with the usage of the whole request and `choices: []`."""
    ERROR = auto()
    DONE = auto()


class EventSplitter:
    """Cuts a byte stream into whole events, each with its trailing blank line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._rest + data
        start = 0
        while (end := data.find(b"\n\n", start)) >= 0:
            yield data[start : end + 2]
            start = end + 2
        self._rest = data[start:]


def classify(event: bytes, committed: bool) -> Kind:
    """What an event is. Before the first token each is parsed; after it, bytes are enough."""
    if event.startswith(b"data: [DONE]"):
        return Kind.DONE
    if event.startswith((b'data: {"error"', b"event: error")):
        return Kind.ERROR
    if b'"choices":[]' in event and b'"usage":{' in event:
        return Kind.USAGE
    if committed:
        return Kind.CONTENT
    return Kind.CONTENT if _says_something(event) else Kind.PREAMBLE


def usage(event: bytes) -> dict[str, object]:
    found = orjson.loads(event[len(b"data: ") :])["usage"]
    return found if isinstance(found, dict) else {}


def _says_something(event: bytes) -> bool:
    if not event.startswith(b"data: "):
        return False
    try:
        choices = orjson.loads(event[len(b"data: ") :]).get("choices") or []
    except orjson.JSONDecodeError:
        return False
    for choice in choices:
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or choice.get("text"):
            return True
        if any(value for key, value in delta.items() if key != "role"):
            return True
    return False
