"""From text to findings.

One pass of RE2 over all triggers at once says which detectors may find something; most text has
none. Then the text is read again as it reads decoded: encodings first, then spellings within.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import re2

from orchestrator.classify import (
    addresses,
    contacts,
    documents,
    national_ids,
    people,
    secrets,
)
from orchestrator.classify.encodings import EMBEDDED, Base64, Blobs, Hex, JsonEscapes, Percent
from orchestrator.classify.findings import Finding, FindingType, without_overlaps
from orchestrator.classify.iban import Ibans
from orchestrator.classify.markers import Markers
from orchestrator.classify.normalize import normalize, origins
from orchestrator.classify.numbers import NumberRuns
from orchestrator.classify.spellings import (
    ControlCharacters,
    LookAlikeDigits,
    SpacedOut,
    SpelledDigits,
)
from orchestrator.classify.text import Detector, Level, Reading, Text

_MEMORY_BYTES = 32 << 20
_ENCODED_AGAIN = 24
"""Text of this length that was encoded twice is not followed, but counts as unreadable."""


class ScanFailed(Exception):
    """The engine gave up. It says nothing of the content."""


FORMS: tuple[Detector, ...] = (
    *people.RULES,
    *documents.RULES,
    *secrets.RULES,
    *contacts.RULES,
    *national_ids.RULES,
    *addresses.RULES,
    NumberRuns(),
    EMBEDDED,
    Percent(),
    JsonEscapes(),
    ControlCharacters(),
)
RUNS: tuple[Detector, ...] = (
    Ibans(),
    Base64(),
    Hex(),
    SpelledDigits(),
    SpacedOut(),
    LookAlikeDigits(),
)
"""These count letters in every word."""
BLOBS = Blobs()


class _Triggers:
    """Which of several detectors have something to look at, in one pass."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        self._detectors = detectors
        self._set = re2.Set.SearchSet(options)
        # A set that runs out of memory answers as if nothing matched: not even the end of the text,
        # which always does. What matches everywhere would be put down at every byte.
        for pattern in [r"\z", *(detector.trigger for detector in detectors)]:
            self._set.Add(pattern)
        self._set.Compile()

    def pulled(self, text: Text) -> Iterator[Detector]:
        """Raises ScanFailed where the engine cannot tell."""
        matching = self._set.Match(text.data)
        if not matching or 0 not in matching:
            raise ScanFailed
        for index in matching:
            text.check()
            if index:
                yield self._detectors[index - 1]


# Apart, for the states of one automaton multiply with those of another: text that was never seen
# before costs most of its time for states that were not either.
_TRIGGERS = tuple(_Triggers(group) for group in (FORMS, RUNS))


def pulled(text: Text) -> Iterator[Detector]:
    """What has something to look at in a text. Raises ScanFailed where the engine cannot tell."""
    for triggers in _TRIGGERS:
        yield from triggers.pulled(text)
    if BLOBS.is_pulled(text):
        yield BLOBS


class Scanner:
    """Holds no state of any text: one serves all threads."""

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        phrases = tuple(phrases)
        self._markers = Markers(phrases) if phrases else None

    def scan(self, data: bytes, check: Callable[[], None]) -> list[Finding]:
        """All findings in normalized text, of which some may overlap; places are bytes.

        Calls `check` between steps; what that raises ends the scan. Raises ScanFailed where the
        engine cannot tell.
        """
        return list(self._scan(Text(data, check), Level.SENT))

    def find(self, text: str) -> list[Finding]:
        """Findings in any text, one per place, in order; places are its characters."""
        data = normalize(text).encode("utf-8", "replace")
        origin = origins(text)
        # The character that each byte belongs to.
        character = list(accumulate((byte & 0xC0 != 0x80 for byte in data), initial=-1))[1:]
        return [
            Finding(f.type, origin[character[f.start]], origin[character[f.end - 1]] + 1)
            for f in without_overlaps(self.scan(data, lambda: None))
        ]

    def _scan(self, text: Text, level: Level) -> Iterator[Finding]:
        if self._markers is not None:
            yield from self._markers.look(text)
        for detector in pulled(text):
            for seen in detector.look(text):
                if isinstance(seen, Finding):
                    yield seen
                elif seen.level > level:
                    yield from self._reread(seen, text.check)
                elif seen.level is level is Level.ENCODED and len(seen) >= _ENCODED_AGAIN:
                    yield Finding(FindingType.UNREADABLE, seen.start, seen.end)

    def _reread(self, reading: Reading, check: Callable[[], None]) -> Iterator[Finding]:
        for finding in self._scan(Text(reading.data, check), reading.level):
            if finding.end > reading.read_from and finding.start < reading.read_to:
                yield Finding(finding.type, reading.start, reading.end)
