"""Ordinary tokens of a stream, told by their bytes alone.

But for its text and its counts each is the token before it once more. What differs in any other way
is read as JSON: so is text with an escape or a control character in it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

USAGE = (
    rb'(?P<usage>,"usage":(?:null|\{"prompt_tokens":\d+,"total_tokens":\d+,"completion_tokens":(?P<told>\d+)'
    rb'(?:,"[a-z_]+":(?:null|\{(?:"[a-z_]+":(?:null|\d+),?)*\}))*\}))?'
)
"""The last field of a vLLM chunk, where usage is told throughout."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How vLLM writes the event of an ordinary token."""

    marker: bytes
    """What stands before the text."""
    after: re.Pattern[bytes]
    """All that comes from the text's closing quote on."""


class Token:
    __slots__ = ("_after", "_marker", "_plain", "before")

    def __init__(self, shape: Shape) -> None:
        self._marker, self._after = shape.marker, shape.after
        self.before = b""
        """All bytes before the text; empty until a token was learned."""
        self._plain = b""
        """All bytes after the text of a token without usage; empty until there was one."""

    def learn(self, event: bytes) -> None:
        """From an event that was read as JSON, and is passed on as it came."""
        # Within a JSON string quotes are escaped: the marker can only be fields.
        start = event.find(self._marker) + len(self._marker)
        if start >= len(self._marker):
            self.before = event[:start]

    def row(self, events: bytes, start: int) -> Iterator[tuple[str, re.Match[bytes] | None, int]]:
        """Of the tokens in a row that begin there, each one's text, the match of its usage where it
        has one, and where the next event begins. What comes after the row is to be read as JSON."""
        before, plain, place = self.before, self._plain, start
        while before and events.startswith(before, place):
            begin = place + len(before)
            end = events.find(b'"', begin)
            after = None
            if plain and events.startswith(plain, end):
                place = end + len(plain)
            else:
                after = self._after.match(events, end)
                if after is None:
                    return
                place = after.end()
                if after.lastgroup is None:
                    plain, after = after[0], None
                    self._plain = plain
            try:
                text = events[begin:end].decode()
            except UnicodeDecodeError:
                return
            # A backslash is printable; a line end or another control character is not.
            if "\\" in text or not text.isprintable():
                return
            yield text, after, place
