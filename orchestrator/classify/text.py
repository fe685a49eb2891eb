"""A short stretch of normalized text, and how detectors look at it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, Self

import re2

from orchestrator.classify.findings import Finding, FindingType
from orchestrator.classify.normalize import normalize

Pattern = Any
"""google-re2 has no types."""
SEPARATOR = b"\0"
"""Between strings of a request: no pattern reaches over it."""
CONTEXT = 72
"""Bytes around a number in which a word says what it is."""


@dataclass(frozen=True, slots=True)
class Text:
    data: bytes
    check: Callable[[], None]

    def matches(self, pattern: Pattern) -> Iterator[tuple[int, int]]:
        """The place of the first group, or of the whole, of each match.

        What a match takes after its group, as a boundary, is free for the next. The time is
        checked before each.
        """
        group = 1 if pattern.groups else 0
        place = 0
        while (match := pattern.search(self.data, place)) is not None:
            self.check()
            start, end = match.span(group)
            place = max(end, place + 1)
            yield start, end

    def before(self, place: int, length: int = CONTEXT) -> str:
        """What stands before a place in the same string, in small letters."""
        window = self.data[max(0, place - length) : place]
        return _lower(window[window.rfind(SEPARATOR) + 1 :])

    def after(self, place: int, length: int = 24) -> str:
        window = self.data[place : place + length]
        end = window.find(SEPARATOR)
        return _lower(window if end < 0 else window[:end])


def _lower(window: bytes) -> str:
    return window.decode("utf-8", "ignore").lower().replace("_", " ")


class Level(IntEnum):
    """How far a text is from what was sent. Each is looked for only in those before it."""

    SENT = 0
    ENCODED = 1
    ESCAPED = 2
    SPELLED = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """A stretch of text as it reads once it is decoded, after the words before it."""

    data: bytes
    read_from: int
    read_to: int
    """The stretch within `data`; what surrounds it is context alone."""
    start: int
    end: int
    """The stretch in the text that this is a reading of."""
    level: Level

    def __len__(self) -> int:
        return self.end - self.start

    @classmethod
    def of(cls, text: Text, start: int, end: int, read: str, level: Level) -> Self:
        before = text.data[max(0, start - CONTEXT) : start]
        before = before[before.rfind(SEPARATOR) + 1 :]
        after = text.data[end : end + CONTEXT].split(SEPARATOR)[0]
        inner = before + normalize(read).encode("utf-8", "replace")
        return cls(inner + after, len(before), len(inner), start, end, level)


class Detector(Protocol):
    """Looks at text in which its trigger matches."""

    trigger: str

    def look(self, text: Text) -> Iterator[Finding | Reading]: ...


class Rule:
    """A pattern whose first group (or the whole) is a finding, if `accept` says so.

    `accept` takes what matched, the text, and where in it the match ends. `hint` is a cheaper
    pattern that matches wherever `pattern` does.
    """

    def __init__(
        self,
        type: FindingType,
        pattern: str,
        accept: Callable[[str, Text, int], bool] | None = None,
        hint: str = "",
    ) -> None:
        self.trigger = hint or pattern
        self._type = type
        self._pattern = compiled(pattern)
        self._accept = accept

    def look(self, text: Text) -> Iterator[Finding]:
        for start, end in text.matches(self._pattern):
            found = decoded(text.data[start:end])
            if self._accept is None or self._accept(found, text, end):
                yield Finding(self._type, start, end)


def compiled(pattern: str) -> Pattern:
    return re2.compile(pattern.encode())


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_NOT_ALNUM = re.compile(r"[^0-9A-Za-z]")


def compact(text: str) -> str:
    """Letters and digits alone, letters in capitals."""
    return _NOT_ALNUM.sub("", text).upper()
