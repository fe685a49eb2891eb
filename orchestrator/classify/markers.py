"""Words and phrases that a workload names as sensitive."""

import re
from collections.abc import Iterable, Iterator

import re2

from orchestrator.classify.findings import Finding, FindingType
from orchestrator.classify.normalize import normalize
from orchestrator.classify.text import Text, compiled

_JOINT = r"[\s_.\-]{0,3}"


class Markers:
    """Phrases match in any letter case, with any or no space between their words.

    Raises ValueError for a phrase without a letter or digit.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        any_phrase = "|".join(map(_pattern, phrases))
        self._pattern = compiled(rf"(?i)(?:^|[^0-9A-Za-z])({any_phrase})(?:$|[^0-9A-Za-z])")

    def look(self, text: Text) -> Iterator[Finding]:
        for start, end in text.matches(self._pattern):
            yield Finding(FindingType.MARKER, start, end)


def _pattern(phrase: str) -> str:
    if not any(map(str.isalnum, phrase)):
        raise ValueError("a marker needs a letter or a digit")
    words = filter(None, re.split(r"[\s_\-]+", phrase))
    return _JOINT.join("".join(map(_any_case, word)) for word in words)


def _any_case(character: str) -> str:
    """Look-alikes of a small letter and of its capital need not be each other's."""
    forms = {normalize(form) for form in (character, character.lower(), character.upper())}
    return f"(?:{'|'.join(map(re2.escape, sorted(forms)))})"
