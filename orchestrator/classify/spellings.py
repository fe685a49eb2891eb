"""Other spellings of digits and letters: spaced out, as words, as letters that look like digits."""

import re
from collections.abc import Iterator

from orchestrator.classify.text import Level, Reading, Text, compiled, decoded

_UNITS = {
    "zero": "0", "oh": "0", "nought": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
_SIGNS = {"dot": ".", "point": ".", "period": ".", "dash": "-", "hyphen": "-", "minus": "-",
          "slash": "/", "plus": "+", "at": "@"}  # fmt: skip
_TIMES = {"double": 2, "triple": 3}
_UNIT = "|".join(_UNITS)


class SpelledDigits:
    """`four one one one`, also with `dot`, `dash` and groups of letters or digits in between."""

    _GAP = r"[\s,.\-/:+@()]{1,6}"
    trigger = rf"(?i)(?:{_UNIT})(?:{_GAP}(?:(?:{'|'.join(_TIMES)}){_GAP})?(?:{_UNIT})){{2}}"

    def __init__(self) -> None:
        word = rf"(?:{_UNIT}|{'|'.join(_SIGNS)}|{'|'.join(_TIMES)})"
        self._run = compiled(
            rf"(?i)\b(?:[a-z]{self._GAP}){{0,8}}{word}"
            rf"(?:{self._GAP}(?:{word}|[0-9a-z]{{1,4}})\b){{2,}}"
        )
        self._token = re.compile(r"([0-9A-Za-z]+)")
        # Words of the sentence that follow are none of the number, but a letter may be.
        self._ends = [
            re.compile(rf".*\b{word}\b", re.IGNORECASE | re.DOTALL),
            re.compile(rf".*\b{word}{self._GAP}[a-z]\b", re.IGNORECASE | re.DOTALL),
        ]

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            run = decoded(text.data[start:end])
            for last in {m.end() for m in (end.match(run) for end in self._ends) if m}:
                parts = self._token.split(run[:last])
                spelled = _as_digits(parts[1::2], ["", *parts[2:-1:2]])
                if sum(map(str.isdigit, spelled)) >= 4:
                    yield Reading.of(text, start, start + last, spelled, Level.SPELLED)


def _as_digits(words: list[str], gaps: list[str]) -> str:
    """Takes each word with the gap before it."""
    gaps = [gap.strip().replace(",", "") for gap in gaps]
    common = {gap[:1] for gap in gaps[1:]}
    if len(common) == 1:
        # A sign between all words parts the words and not the number.
        gaps = [gap[1:] if gap == gap[:1] else gap[1:].rstrip(gap[0]) for gap in gaps]
    parts: list[str] = []
    times = 1
    for word, gap in zip((w.lower() for w in words), gaps, strict=True):
        if word in _TIMES:
            times = _TIMES[word]
            parts.append(gap)
        elif word in _UNITS:
            parts.append(gap + _UNITS[word] * times)
            times = 1
        elif word in _SIGNS:
            parts.append(gap + _SIGNS[word])
        elif len(word) == 1 or word.isdigit():
            parts.append(gap + word.upper())
        else:
            parts.append(f"{gap} {word.upper()} ")
    return "".join(parts)


class SpacedOut:
    """`4 1 1 1`, `j o h n @ x . c o m`: single characters with one separator between them."""

    _ONE = r"[0-9A-Za-z@.+%:/_()\-]"
    _SPACED = rf"{_ONE}(?:[ \t]{{1,3}}{_ONE})"
    _SIGNED = r"[0-9A-Za-z](?:[.\-_|*,][0-9A-Za-z@.+%:/_() \-])"
    trigger = rf"(?:^|[^0-9A-Za-z])(?:{_SPACED}{{6}}|{_SIGNED}{{6}})"

    def __init__(self) -> None:
        self._run = compiled(
            rf"(?:^|[^0-9A-Za-z])({self._SPACED}{{6,}}|{self._SIGNED}{{6,}})"
            r"(?:$|[^0-9A-Za-z])"
        )

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            run = decoded(text.data[start:end])
            if run[1] in " \t":
                # Wider gaps part words.
                words = re.split(r"[ \t]{2,}", run)
                closed = " ".join(w.replace(" ", "").replace("\t", "") for w in words)
            else:
                closed = run[::2]
            yield Reading.of(text, start, end, closed, Level.SPELLED)


class LookAlikeDigits:
    """`4lll llll O123`: letters O, I and l among digits."""

    trigger = r"(?:^|[^A-Za-z])[0-9OoIl](?:[ .\-]?[0-9OoIl]){6}"

    def __init__(self) -> None:
        self._run = compiled(r"(?:^|[^A-Za-z])([0-9OoIl](?:[ .\-]?[0-9OoIl]){6,})")

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            run = decoded(text.data[start:end])
            letters = sum(map(str.isalpha, run))
            if 0 < letters <= sum(map(str.isdigit, run)):
                yield Reading.of(text, start, end, run.translate(_DIGIT_OF), Level.SPELLED)


_DIGIT_OF = str.maketrans("OoIl", "0011")


class ControlCharacters:
    """Control characters inside a word or number, which no one sees."""

    _CONTROL = r"[\x01-\x08\x0e-\x1f\x7f]"
    trigger = _CONTROL

    def __init__(self) -> None:
        self._run = compiled(rf"{self._CONTROL}(?:[^\x00]{{0,64}}{self._CONTROL})*")

    def look(self, text: Text) -> Iterator[Reading]:
        for start, end in text.matches(self._run):
            shown = decoded(text.data[start:end].translate(None, _CONTROLS))
            yield Reading.of(text, start, end, shown, Level.SPELLED)


_CONTROLS = bytes([*range(1, 9), *range(14, 32), 127])
