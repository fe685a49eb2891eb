"""An ordinary token of a stream, told by its bytes alone.

But for its text and its counts it is the token before it once more. What differs in any other way
is read as JSON: so is text with an escape or a control character in it.
"""

import re
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
    __slots__ = ("_after", "_marker", "_start", "before")

    def __init__(self, shape: Shape) -> None:
        self._marker, self._after = shape.marker, shape.after
        self.before = b""
        """All bytes before the text; empty until a token was learned."""
        self._start = 0

    def learn(self, event: bytes) -> None:
        """From an event that was read as JSON, and is passed on as it came."""
        # Within a JSON string quotes are escaped: the marker can only be fields.
        start = event.find(self._marker) + len(self._marker)
        if start >= len(self._marker):
            self.before, self._start = event[:start], start

    def match(self, event: bytes) -> tuple[str, re.Match[bytes]] | None:
        """The text, and the match of what follows it. None for what is to be read as JSON."""
        start = self._start
        if not start or not event.startswith(self.before):
            return None
        end = event.find(b'"', start)
        try:
            text = event[start:end].decode()
        except UnicodeDecodeError:
            return None
        # A backslash is printable; a line end or another control character is not.
        if "\\" in text or not text.isprintable():
            return None
        after = self._after.fullmatch(event, end)
        return None if after is None else (text, after)
