"""Names and dates of birth, as far as rules can tell them.

A rule wants words that say what follows (`my name is`, `born on`). Names in running text are not
found: too much harmless text has them.
"""

import re

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text

_NAME = r"[A-Z][a-z]{1,20}(?:['\-][A-Z][a-z]{1,20})?"
_MIDDLE = r"(?:[A-Z]\.? )?(?:(?:van|von|de|der|den|da|di|la|al|bin|del|dos) ){0,2}"
_FULL_NAME = rf"{_NAME}(?: {_MIDDLE}{_NAME}){{1,3}}"

_TITLE = r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau|Sr|Sra|Mme)\.? "
_ROLE = r"(?:patient|employee|customer|applicant|cardholder|full name|first name|last name|surname)"
_SAYS_NAME = (
    r"(?i:\bname(?: is|'s|\?| on [a-z ]{1,24}\?)(?: user:)?|\bcall(?:ed)? me"
    r"|\bi(?:'?m| am)(?: called)?"
    rf"|\bsincerely,?|\bregards,?|\bdear|\b{_ROLE}:)"
)
_FORM_FIELD = r"(?i:address|phone|e-?mail|birth|\bdob\b|\btel\b|\bzip\b)"
_RELATION = (
    r"(?:wife|husband|partner|son|daughter|kid|child|mother|father|brother|sister|boss|manager"
    r"|colleague|doctor|friend|neighbou?r)"
)
_LIVES = r"(?i:lives? (?:at|in|on)|lived (?:at|in|on)|resides|works (?:at|for|as))"

_MONTH = (
    r"(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DATE = (
    r"(?:[0-9]{1,2} ?[/.\-] ?[0-9]{1,2} ?[/.\-] ?(?:[0-9]{4}|[0-9]{2})"
    r"|[0-9]{4}[/.\-][0-9]{1,2}[/.\-][0-9]{1,2}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}\.?,? [0-9]{{4}}"
    rf"|{_MONTH}\.? [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}})"
)
_BIRTH = r"(?i:\bborn|birth|\bd\.?o\.?b\b|\bgeboren|\bgeb\.|\bnee? le|\bnacid[oa]|\bnat[oa] il)"


def _is_recent(value: str, text: Text, end: int) -> bool:
    """A date of birth two lifetimes ago is history."""
    years = re.findall(r"[0-9]{4}", value)
    return not years or int(years[-1]) >= 1910


RULES = (
    Rule(FindingType.PERSON_NAME, rf"{_TITLE}({_FULL_NAME})", hint=_TITLE),
    Rule(
        FindingType.PERSON_NAME,
        rf"{_SAYS_NAME}\s{{1,4}}({_FULL_NAME})",
        hint=r"(?i:name(?: is|'s|\?| on )|call(?:ed)? me|\bi'?m\b|\bi am|sincerely|regards|\bdear"
        rf"|{_ROLE}:)",
    ),
    Rule(
        FindingType.PERSON_NAME,
        rf"(?i:\b(?:my|his|her|their) (?:[a-z]{{3,8}} )?name is) ({_NAME})",
        hint=r"(?i:name is)",
    ),
    Rule(
        FindingType.PERSON_NAME,
        rf"(?i:\b(?:my|our) {_RELATION}) ({_NAME})",
        hint=rf"(?i:\b(?:my|our) {_RELATION})",
    ),
    Rule(
        # In a form; configuration and programs have names too.
        FindingType.PERSON_NAME,
        rf"(?i:\bname:)\s{{1,8}}({_FULL_NAME})[^\x00]{{0,40}}?{_FORM_FIELD}",
        hint=r"(?i:name:)",
    ),
    Rule(FindingType.PERSON_NAME, rf"\b({_FULL_NAME}) {_LIVES}", hint=_LIVES),
    Rule(
        FindingType.DATE_OF_BIRTH,
        rf"{_BIRTH}[^\x00\n]{{0,40}}?\b({_DATE})",
        _is_recent,
        hint=_BIRTH,
    ),
)
