"""One spelling for what looks alike: digits, letters, dashes and spaces of all of Unicode.

Every character is mapped on its own, so that text may be cut anywhere, and a place in the result
leads back to its place in the original.
"""

import string
import unicodedata

from confusable_homoglyphs.confusables import confusables_data

_IGNORED = frozenset(
    [
        *(0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE1000),
    ]
)
"""Drawn as nothing though they are letters, marks or symbols."""
_LINE_BREAKS = frozenset("\t\n\v\f\r\x85\u2028\u2029")
_SIGNS = {
    **dict.fromkeys("\u2043\u2212\u02d7\u2796\u30fb\u30fc", "-"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    "\u3002": ".",
}
"""Signs that stand for one of ASCII without being listed as confusable with it."""


_IMITATED = frozenset(string.ascii_letters + string.digits + "'.:/-_")


def _look_alikes() -> dict[str, str]:
    """What the Unicode standard lists as confusable with a letter, digit or sign of ASCII."""
    ascii_of = {}
    for character, others in confusables_data.items():
        if len(character) == 1 and not character.isascii():
            for other in others:
                if other["c"] in _IMITATED:
                    ascii_of[character] = other["c"]
    # The standard takes the capital I of other scripts for its prototype, a small l.
    return {c: "I" if a == "l" and c.isupper() else a for c, a in ascii_of.items()}


_LOOK_ALIKES = _look_alikes()


def _map(character: str) -> str:
    category = unicodedata.category(character)
    if character == "\0":
        return character
    if character in _LINE_BREAKS:
        return "\n" if character != "\t" else " "
    if category in ("Cf", "Cc", "Cs", "Mn", "Me") or ord(character) in _IGNORED:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if character in _SIGNS or category == "Pd":
        return _SIGNS.get(character, "-")
    if category == "Zs":
        return " "
    if character in _LOOK_ALIKES:
        return _LOOK_ALIKES[character]
    compatible = unicodedata.normalize("NFKD", character)
    if compatible != character:
        # A sign that stands for several letters is no part of the word or number beside it.
        mapped = "".join(map(_map, compatible))
        return f"{mapped} " if len(mapped) > 1 and category[0] == "S" else mapped
    return character


class _Table(dict[int, str]):
    """Filled as characters come; there are no more than Unicode has."""

    def __missing__(self, code: int) -> str:
        mapped = self[code] = _map(chr(code))
        return mapped


_TABLE = _Table()


def normalize(text: str) -> str:
    """The text in the one spelling. NUL, which separates strings here, stays."""
    return text if text.isascii() else text.translate(_TABLE)


def origins(text: str) -> list[int]:
    """For each place in `normalize(text)`, and its end, the place in the text it comes from."""
    if text.isascii():
        return list(range(len(text) + 1))
    places = [index for index, c in enumerate(text) for _ in _TABLE[ord(c)]]
    return [*places, len(text)]
