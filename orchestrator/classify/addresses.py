"""Postal addresses, as far as rules can tell them: a number and a street, a box, a postcode."""

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text

_NUMBER = r"[0-9]{1,5}[A-Za-z]?"
_PLACE = r"[A-Z][A-Za-z.'\-]{1,20}(?: [A-Z][A-Za-z.'\-]{1,20}){0,3}"
_STREET = (
    r"(?i:street|st|road|rd|avenue|ave|av|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|square"
    r"|sq|terrace|way|parkway|pkwy|highway|hwy|circle|cir|trail|trl|crescent|cres|close|grove"
    r"|gardens|mews|quay|alley|plaza)"
)
_STREET_END = (
    r"(?:strasse|straße|str\.|gasse|weg|platz|allee|straat|laan|singel|plein|vej|gatan|vagen"
    r"|veien|vegen|katu|kuja|utca)"
)
_STREET_START = (
    r"(?:Rua|Avenida|Av\.|Travessa|Calle|C/|Paseo|Via|Viale|Corso|Vicolo|Strada|Largo|Rue|Chemin"
    r"|ul\.|Ulica|Aleja)"
)
_STREET_FRENCH = r"(?i:rue|avenue|boulevard|chemin|allee|impasse|quai)"
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI"
    r"|S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
)
_AT = (
    r"(?i:(?:liv|resid)(?:es?|ed|ing) (?:at|on)|located at|ship(?:ped)? to"
    r"|deliver(?:ed)? to|(?:my|his|her|their|your|our|home|billing|postal|mailing|shipping|new)"
    r" address(?:es)?|address(?: is|:))"
)
_NUMBERED = r"[0-9][A-Za-z]?,? [A-Z]"
_ZIP = r"(?i:\b(?:zip|postcode|postal code)(?: code)? ?: ?)"
_MEMORY = ("GB", "TB", "PB")


def _is_zip(value: str, text: Text, end: int) -> bool:
    return sum(map(str.isdigit, value)) >= 3


def _is_postcode(value: str, text: Text, end: int) -> bool:
    # `M1 8GB` is a computer.
    return not value.endswith(_MEMORY)


RULES = (
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"\b({_NUMBER},? (?:[NSEW]\.? )?{_PLACE} {_STREET}\b\.?)",
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
        _is_zip,
        hint=_ZIP,
    ),
    Rule(FindingType.POSTAL_ADDRESS, r"(?i:\bp\.? ?o\.? ?box [0-9]{1,6})"),
    Rule(FindingType.POSTAL_ADDRESS, r"\b(?:Apt|Apartment|APT)\.? ?#?[0-9]{1,5}\b"),
    Rule(
        FindingType.POSTAL_ADDRESS,
        rf"(?:,|\b[ADF]PO) ({_STATE}|A[AEP]),? [0-9]{{5}}(?:-[0-9]{{4}})?\b",
        hint=r"[A-Z]{2},? [0-9]{5}",
    ),
    Rule(
        FindingType.POSTAL_ADDRESS,
        r"\b[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][ABD-HJLNP-UW-Z]{2}\b",
        _is_postcode,
        hint=r"[0-9][0-9A-Z]? [0-9][A-Z]{2}",
    ),
)
