"""Postal addresses, as far as rules can tell them: a number and a street, a box, a postcode."""

import re

from orchestrator.classify.findings import FindingType
from orchestrator.classify.people import FULL_NAME
from orchestrator.classify.text import MONTHS, START, Rule, Text

_NUMBER = r"[0-9]{1,5}[A-Za-z]?"
_PLACE = r"[A-Z][A-Za-z.'\-]{1,20}(?: [A-Z][A-Za-z.'\-]{1,20}){0,3}"
_STREET = (
    r"(?i:street|st|road|rd|avenue|ave|av|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|square"
    r"|sq|terrace|way|parkway|pkwy|highway|hwy|circle|cir|trail|trl|crescent|cres|close|grove"
    r"|gardens|mews|quay|alley|plaza)"
)
_STREET_END = (
    r"(?:strasse|straße|str\.|gasse|weg|platz|allee|straat|laan|singel|plein|vej|gade|gata|gatan"
    r"|vagen|veien|vegen|katu|tie|kuja|utca|stien)"
)
_STREET_START = (
    r"(?:Rua|R\.|Avenida|Av\.|Travessa|Calle|C/|Paseo|Via|Viale|Corso|Vicolo|Strada|Largo|Rue"
    r"|Chemin|Place|ul\.|Ulica|Aleja)"
)
_STREET_FRENCH = r"(?i:rue|avenue|boulevard|place|chemin|allee|impasse|quai)"
_STATE = (
    r"(?:A[AEKLPRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI"
    r"|S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
)
_AT = (
    r"(?i:address(?:es)?|liv(?:es?|ed|ing) (?:at|on|in)|resid(?:es?|ing) (?:at|on|in)|located at"
    r"|ship(?:ped)? to|deliver(?:ed)? to|sen[dt] to|moved? to)"
)
_UNIT = r"\b(?i:apt|apartment|suite)\.? ?#?[0-9]{1,5}\b"
_BOX = r"(?i:\bp\.? ?o\.? ?box [0-9]{1,6})"
_ZIP = r"(?i:\b(?:zip|postcode|postal code)(?: code)? ?: ?)"
_NUMBERED = r"[0-9][A-Za-z]?,? [A-Z]"

_COUNTED = re.compile(
    rf"\b(?:{MONTHS}|section|chapter|part|figure|table|grade|step|version|page|line|level|phase"
    r"|question|round|binary|decimal|hexadecimal)\b",
    re.IGNORECASE,
)
"""What stands before a number that is no house's."""


def _is_address(value: str, text: Text, end: int) -> bool:
    return not _COUNTED.search(value)


def _is_postcode(value: str, text: Text, end: int) -> bool:
    return sum(map(str.isdigit, value)) >= 3


RULES = (
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b({_NUMBER},? (?:[NSEW]\.? )?{_PLACE} {_STREET}\b\.?)",
        hint=_NUMBERED,
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"(?:^|[\s>\x00])({_NUMBER} {_PLACE} [0-9]{{1,4}})\b",
        _is_address,
        hint=_NUMBERED,
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b([A-Z][a-z]{{2,20}}{_STREET_END} {_NUMBER})\b",
        hint=rf"[a-z]{_STREET_END} [0-9]",
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b({_STREET_START} (?:[a-z]{{2,4}} ){{0,2}}{_PLACE},? {_NUMBER})\b",
        hint=rf"\b{_STREET_START} ",
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b({_NUMBER},? (?:bis |ter )?{_STREET_FRENCH} (?:(?:de|du|des|la|le|les) |[dl]'){{0,2}}"
        rf"{_PLACE})",
        hint=rf"[0-9][A-Za-z]?,? (?:bis |ter )?{_STREET_FRENCH}",
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b{_AT}[^\x00\n0-9]{{0,16}}? ({_NUMBER},? (?:[a-z]{{2,4}} ){{0,2}}{_PLACE})",
        hint=_AT,
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"{_ZIP}([0-9A-Za-z][0-9A-Za-z \-]{{2,8}})",
        _is_postcode,
        hint=_ZIP,
    ),
    Rule(FindingType.POSTAL_ADDRESS, _BOX),
    Rule(FindingType.POSTAL_ADDRESS, _UNIT),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b{_STATE},? [0-9]{{5}}(?:-[0-9]{{4}})?\b",
        hint=r"[A-Z]{2},? [0-9]{5}",
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        r"\b[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][ABD-HJLNP-UW-Z]{2}\b",
        hint=r"[0-9][0-9A-Z]? [0-9][A-Z]{2}",
    ),
    # The first lines of a letter: who, then where.
    Rule(
        FindingType.PERSON_NAME,
        rf"{START}[> ]{{0,3}}({FULL_NAME}) ?\n{{1,2}}[> ]{{0,3}}{_NUMBER} {_PLACE}",
        hint=r"\n[> ]{0,3}[0-9]{1,5}[A-Za-z]? [A-Z]",
    ),
)
