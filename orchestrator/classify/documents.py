"""Numbers of documents and accounts that are called so; their forms are too many to know."""

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text

_CARRIES_NUMBER = (
    r"(?i:passport|driv(?:er|ing)(?:'?s)? ?licen[cs]e|identity card|id card|patient id|iban"
    r"|insurance (?:policy|number|id)|medical (?:record|file)|mrn|tax id|(?-i:TIN|EIN)|voter id"
    r"|employee id|student id|member(?:ship)? id|customer id|account (?:number|no))"
)
_MAY_CARRY_NUMBER = (
    r"(?i:licen[cs]e|visa|national id|account|acct|routing|sort|ifsc|micr|swift|employee|staff"
    r"|patient|insurance|policy|health|medicare|medicaid|member(?:ship)?|subscriber|customer"
    r"|tax|ssn|social security|aadha?a?r|voter|tribal|student|national insurance|nino|nhs"
    r"|identification|id|(?-i:PAN|VAT))"
)
_CALLED_NUMBER = r"(?i:[ _\-]?(?:id(?:entification)?|number|num|no|nr|card|code|#))"
_BEFORE_NUMBER = (
    rf"\b(?:{_CARRIES_NUMBER}{_CALLED_NUMBER}{{0,2}}|{_MAY_CARRY_NUMBER}{_CALLED_NUMBER}{{1,3}})"
    r"\.? ?(?i:(?:is|was|of|are)\b)?[ \t:=#'\"(]"
)


def _is_number(value: str, text: Text, end: int) -> bool:
    return sum(map(str.isdigit, value)) >= 4


RULES = (
    Rule(
        FindingType.DOCUMENT_NUMBER,
        rf"{_BEFORE_NUMBER}{{1,5}}"
        r"((?:[A-Za-z]{2,4}: ?)?[0-9A-Za-z][0-9A-Za-z\-/.]{3,30}[0-9A-Za-z])",
        _is_number,
        hint=_BEFORE_NUMBER,
    ),
)
