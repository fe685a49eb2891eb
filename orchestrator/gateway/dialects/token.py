"""An ordinary token of a stream, told by its bytes alone.

But for its text and its counts it is the token before it once more. What differs in any other way
is read as JSON: so is text with an escape or a control character in it.
"""

import re

USAGE = (
    rb'(?P<usage>,"usage":(?:null|\{"prompt_tokens":\d+,"total_tokens":\d+,"completion_tokens":\d+'
    rb'(?:,"[a-z_]+":(?:null|\{(?:"[a-z_]+":(?:null|\d+),?)*\}))*\}))?'
)
"""The last field of a vLLM chunk, where usage is told throughout."""


class Token:
    """`marker` are the bytes before the text, `after` matches all that comes from its closing
    quote on."""

    __slots__ = ("_after", "_marker", "_start", "before")

    def __init__(self, marker: bytes, after: re.Pattern[bytes]) -> None:
        self._marker = marker
        self._after = after
        self._start = 0
        self.before = b""
        """All bytes before the text; empty until a token was learned."""

    def learn(self, event: bytes, text: str) -> None:
        """From an event that was read as JSON, and that says this text and nothing else."""
        start = event.find(self._marker) + len(self._marker)
        self.before = b""
        if start < len(self._marker) or event.find(b"\n\n") != len(event) - 2:
            return
        self.before, self._start = event[:start], start
        found = self.match(event)
        if found is None or found[0] != text:
            self.before = b""

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
