"""Runs of digits: payment cards, national ids, telephones.

A run is taken apart at its separators, and every stretch of whole groups is looked at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import phonenumbers
from stdnum import luhn

from orchestrator.classify.findings import Finding, FindingType
from orchestrator.classify.national_ids import NUMERIC, NumericId
from orchestrator.classify.text import Text, compiled, decoded

_MAX_DIGITS = 48
_SEPARATOR = r"[ \t\n.\-/()]"
_RUN = rf"[0-9](?:{_SEPARATOR}{{0,3}}[0-9]){{5,{_MAX_DIGITS - 1}}}"
_SHORTEST_NUMBER, _LONGEST_NUMBER = 6, 19
_NEAR = 36
"""Characters before a number in which a word names it beyond doubt."""

_CARD_SHAPES = re.compile(
    r"9{12,19}|9999([ .\-/]?)9999\1?9999\1?9{1,7}|9999([ .\-])9{6}\2?9{4,5}|9{6}([ .\-])9{6,13}"
)
_CARD_PREFIX = re.compile(
    r"4|5[0-8]|2[2-7]|3[47]|30[0-5]|309|3[689]|35|6[0-9]|2131|1800|8[12]|220[0-4]"
)
_CARD_LENGTHS = {"4": (13, 16, 18, 19), "34": (15,), "37": (15,), "36": (14, 16), "38": (14, 16),
                 "30": (14, 16), "39": (14, 16), "21": (15,), "18": (15,)}  # fmt: skip

_AMERICAN_SHAPES = re.compile(r"(?:9[ .\-])?(?:\(999\) ?999[ .\-]|999([.\-])999\1)9999")
_TRUNK_SHAPES = re.compile(
    r"\(?9{2,5}\)?[ \-/]{1,2}9{2,8}(?:[ \-]9{2,4}){1,4}"
    r"|\(9{2,5}\) ?9{4,8}"
)
_TRUNK_PREFIX = re.compile(r"0[1-9]")
_DECIMAL = re.compile(r"\b\d+\.\d+ \d|\b\d{1,2}\.\d+$")
_DATE = re.compile(
    r"[0-3]?\d[./\- ][0-3]?\d[./\- ](?:19|20)\d\d\b|(?:19|20)\d\d[./\- ][01]?\d[./\- ][0-3]?\d\b"
)
_PHONE_WORDS = (
    r"(?:tele)?(?:phones?|fax)|mobile|cell ?(?:phone|number|no|ular)|tel|call|dial|reach|whatsapp"
    r"|sms|contact|hotline|answering|voicemail|messages? to|text (?:me|us|him|her)|telefono?"
    r"|(?:my|his|her|their|your|our) number|number is"
)
_CARD_WORDS = r"(?:credit|debit|bank|atm|payment|visa|master)[ \-]?cards?|cards?|cc|amex"
_EIN_SHAPE = "99-9999999"
"""The tax number of an American business, near words that also name a person's."""
_TOKEN_END = re.compile(r"[0-9a-z]+$")
_LETTER = re.compile(r"[a-z]")
_DIGIT = re.compile(r"[0-9]")
_GROUP = re.compile(r"[0-9]+")
_SPACED_SIGN = re.compile(r"[ \t\n]+([.\-/])[ \t\n]+|[ \t\n]")


def _words(names: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[^a-z])(?:{names})(?:$|[^a-z])")


_SAYS_CARD = _words(_CARD_WORDS)
_SAYS_PHONE = _words(_PHONE_WORDS)
_DIALS = re.compile(
    rf"(?:^|[^a-z])(?:{_PHONE_WORDS})(?: (?:me|us|him|her|at|on|is|number|no)\b){{0,3}}[ .:#(]*$"
)
"""Right before a number, too short for one elsewhere."""
_WORDS = [(number, _words(number.words)) for number in NUMERIC if number.words]
_BY_SHAPE: dict[str, list[NumericId]] = {}
for _number in NUMERIC:
    for _shape in _number.shapes:
        _BY_SHAPE.setdefault(_shape, []).append(_number)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some adjacent groups of a run."""

    written: str
    digits: str
    shape: str
    """Each digit written 9, spaces around a sign left out."""
    start: int
    whole: bool
    """Whether these are all groups of the run."""
    alone: bool
    """Whether its neighbours in the run, if any, are set off by another separator."""


class NumberRuns:
    trigger = rf"[0-9](?:{_SEPARATOR}{{0,3}}[0-9]){{5}}"

    def __init__(self) -> None:
        self._run = compiled(_RUN)

    def look(self, text: Text) -> Iterator[Finding]:
        place = 0
        while (match := self._run.search(text.data, place)) is not None:
            text.check()
            start, place = match.span()
            run = decoded(match.group())
            groups = [g.span() for g in _GROUP.finditer(run)]
            if len(groups) > 1 and sum(end - begin for begin, end in groups) == _MAX_DIGITS:
                # Cut by the limit, perhaps within a number: its last group begins the next run.
                place = start + groups[-1][0]
            yield from _Run(text, start, run, groups).find()


class _Run:
    def __init__(self, text: Text, start: int, run: str, groups: list[tuple[int, int]]) -> None:
        self._start, self._run, self._groups = start, run, groups
        before = text.before(start)
        self._sign = before[-1:]
        # Digits within a code of letters and digits are no number of their own.
        token = _TOKEN_END.search(before)
        self._within_code = bool(
            _LETTER.match(text.after(start + len(run), 1)) or (token and _DIGIT.search(token[0]))
        )
        near = f"{_GROUP.split(before[-_NEAR:])[-1]} {text.after(start + len(run), 12)}"
        far = f"{before} {text.after(start + len(run))}"
        self._is_card = bool(_SAYS_CARD.search(near))
        self._is_dialled = bool(_DIALS.search(before))
        self._is_phone = bool(_SAYS_PHONE.search(far))
        self._named = [number for number, words in _WORDS if words.search(far)]
        self._named_near = [
            number
            for number, words in _WORDS
            if number.name_suffices and number in self._named and words.search(near)
        ]

    def find(self) -> Iterator[Finding]:
        for stretch in self._stretches():
            type = self._type(stretch)
            if type is not None:
                start = self._start + stretch.start
                yield Finding(type, start, start + len(stretch.written))

    def _stretches(self) -> Iterator[_Stretch]:
        groups, run = self._groups, self._run
        gaps = [
            "(" if self._sign == "(" else "",
            *(run[a[1] : b[0]] for a, b in pairwise(groups)),
            "",
        ]
        for first, (start, _) in enumerate(groups):
            digits = 0
            for last in range(first, len(groups)):
                digits += groups[last][1] - groups[last][0]
                if digits > _LONGEST_NUMBER:
                    break
                if digits < _SHORTEST_NUMBER:
                    continue
                written = run[start : groups[last][1]]
                opened = f"({written}" if gaps[first].endswith("(") else written
                inner = gaps[first + 1 : last + 1]
                yield _Stretch(
                    written,
                    "".join(_GROUP.findall(written)),
                    _SPACED_SIGN.sub(lambda m: m[1] or " ", _DIGIT.sub("9", opened)),
                    start,
                    first == 0 and last == len(groups) - 1,
                    gaps[first] not in inner and gaps[last + 1] not in inner,
                )

    def _type(self, stretch: _Stretch) -> FindingType | None:
        if self._is_payment_card(stretch):
            return FindingType.PAYMENT_CARD
        if self._within_code:
            return None
        if stretch.alone and not _is_count(stretch.written):
            for number in _BY_SHAPE.get(stretch.shape, ()):
                if number.admits(stretch.digits):
                    return number.type
        for number in self._named:
            if len(stretch.digits) not in number.digits or stretch.shape == _EIN_SHAPE:
                continue
            if number.admits(stretch.digits) or (stretch.alone and number in self._named_near):
                return number.type
        return FindingType.PHONE if self._is_telephone(stretch) else None

    def _is_payment_card(self, stretch: _Stretch) -> bool:
        digits, count = stretch.digits, len(stretch.digits)
        if count < 12 or len(set(digits)) == 1:
            return False
        grouped = stretch.whole and stretch.shape.count("9") < len(stretch.shape) - 1
        if not (grouped or _CARD_SHAPES.fullmatch(stretch.shape)):
            return False
        is_issued = _is_issued(digits)
        if self._is_card:
            return luhn.is_valid(digits) or (is_issued and stretch.alone)
        return is_issued and count in (15, 16) and luhn.is_valid(digits)

    def _is_telephone(self, stretch: _Stretch) -> bool:
        digits, count = stretch.digits, len(stretch.digits)
        if len(set(digits)) < 3 or count > 15 or _DATE.match(stretch.written):
            return False
        if self._sign == "+" and stretch.start == 0:
            return count >= 7 and _is_international(digits)
        if self._is_phone and stretch.whole:
            is_long = count >= 7 or self._is_dialled
            return is_long and not _DECIMAL.search(stretch.written)
        if not stretch.alone:
            return False
        if _AMERICAN_SHAPES.fullmatch(stretch.shape):
            # Neither an area nor an exchange begins with 0 or 1.
            return digits[-10] >= "2" and digits[-7] >= "2"
        return (
            bool(_TRUNK_PREFIX.match(digits) and _TRUNK_SHAPES.fullmatch(stretch.shape))
            and 9 <= count <= 12
            and len(set(digits)) >= 4
            and not _is_count(stretch.written)
        )


def _is_count(written: str) -> bool:
    """Whether the groups are a sequence like `08 09 10`, or years."""
    groups = [int(group) for group in _GROUP.findall(written)]
    return {b - a for a, b in pairwise(groups)} == {1} or all(1900 <= g < 2100 for g in groups)


def _is_issued(digits: str) -> bool:
    """Whether a card can begin so at this length."""
    lengths = _CARD_LENGTHS.get(digits[:1]) or _CARD_LENGTHS.get(digits[:2]) or range(12, 20)
    return len(digits) in lengths and bool(_CARD_PREFIX.match(digits))


def _is_international(digits: str) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(f"+{digits}"))
    except phonenumbers.NumberParseException:
        return False
