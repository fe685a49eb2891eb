"""International bank account numbers."""

import re
from collections.abc import Iterator

from stdnum import iban

from orchestrator.classify.findings import Finding, FindingType
from orchestrator.classify.text import Text, compact, compiled, decoded

_COUNTRIES = (
    "AD|AE|AL|AT|AZ|BA|BE|BG|BH|BI|BR|BY|CH|CR|CY|CZ|DE|DJ|DK|DO|EE|EG|ES|FI|FK|FO|FR|GB|GE|GI|GL"
    "|GR|GT|HN|HR|HU|IE|IL|IQ|IS|IT|JO|KW|KZ|LB|LC|LI|LT|LU|LV|LY|MC|MD|ME|MK|MN|MR|MT|MU|NI|NL|NO"
    "|OM|PK|PL|PS|PT|QA|RO|RS|RU|SA|SC|SD|SE|SI|SK|SM|SO|ST|SV|TL|TN|TR|UA|VA|VG|XK|YE"
)
_END = re.compile(r"[ .\-]|$")
_GAP = r"[ .\-]?"
_COUNTRY = re.sub(r"\b[A-Z]", lambda first: first[0] + _GAP, _COUNTRIES)
_START = rf"(?:^|[^0-9A-Za-z])((?i:{_COUNTRY}){_GAP}[0-9]{_GAP}[0-9](?:{_GAP}[0-9A-Za-z])"
_NAMED = r"(?i:\biban)\b[^0-9A-Za-z\x00]{0,4}(?i:(?:is|was|number|no|:)[^0-9A-Za-z\x00]{1,4}){0,2}"


class Ibans:
    """Valid ones anywhere, and what is called one whatever its checksum."""

    trigger = (
        rf"{_START}{{11}})"
        rf"|{_NAMED}[ '\"(]{{1,3}}[A-Z]{{2}}[0-9]{{2}}"
    )

    def __init__(self) -> None:
        self._form = compiled(rf"{_START}{{11,30}})")
        self._named = compiled(
            rf"{_NAMED}[ '\"(]{{1,3}}([A-Z]{{2}}[0-9]{{2}}(?:[ \-]?[0-9A-Z]{{3,}}){{2,8}})"
        )

    def look(self, text: Text) -> Iterator[Finding]:
        for start, end in text.matches(self._form):
            length = _valid_length(decoded(text.data[start:end]))
            if length:
                yield Finding(FindingType.IBAN, start, start + length)
        for start, end in text.matches(self._named):
            yield Finding(FindingType.IBAN, start, end)


def _valid_length(value: str) -> int:
    """Tries each end at a separator: words may follow in the same letters and digits."""
    for end in (m.start() for m in _END.finditer(value)):
        number = compact(value[:end])
        if len(number) >= 15 and iban.is_valid(number):
            return end
    return 0
