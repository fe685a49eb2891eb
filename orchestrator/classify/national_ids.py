"""National identity numbers: their forms, their checksums and the words that name them.

A form with a strong checksum or an unusual grouping is enough; a bare run of digits also needs a
word beside it that says what it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stdnum.ar import cuit
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as za_idnr

from orchestrator.classify.findings import FindingType
from orchestrator.classify.text import Rule, Text, compact

Valid = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class NumericId:
    """An identity number made of digits."""

    type: FindingType
    digits: tuple[int, ...]
    is_valid: Valid
    words: str = ""
    """Names it; a run of digits beside them needs no usual grouping."""
    shapes: tuple[str, ...] = ()
    """Usual groupings, each digit written 9, in which it needs no words."""
    name_suffices: bool = False
    """Whether its name beside as many digits counts even if the checksum is wrong."""

    def admits(self, digits: str) -> bool:
        return _admits(self.is_valid, digits)


def _admits(is_valid: Valid, number: str) -> bool:
    try:
        return is_valid(number)
    except Exception:
        # Some checkers fail on parts that they do not know; that does not rule a number out.
        return True


def _is_nir(digits: str) -> bool:
    return int(digits[3:5]) in (*range(1, 13), *range(20, 43)) and nir.is_valid(digits)


def _is_nordic(digits: str) -> bool:
    return personnummer.is_valid(digits) or cpr.is_valid(digits)


def _is_us_number(digits: str) -> bool:
    return ssn.is_valid(digits) or itin.is_valid(digits)


def _other(
    digits: int, is_valid: Valid, words: str = "", shapes: tuple[str, ...] = ()
) -> NumericId:
    return NumericId(FindingType.NATIONAL_ID, (digits,), is_valid, words, shapes)


NUMERIC = (
    NumericId(
        FindingType.US_SSN,
        (9,),
        _is_us_number,
        r"ssns?|itin|soc(?:ial|\.)? ?sec(?:urity|\.)?|tax ?payer|tax id",
        ("999-99-9999",),
        name_suffices=True,
    ),
    NumericId(
        FindingType.IN_AADHAAR,
        (12, 14),
        aadhaar.is_valid,
        "aadha?a?r|uidai",
        ("9999 9999 9999", "9999-9999-9999"),
        name_suffices=True,
    ),
    NumericId(FindingType.UK_NHS, (10,), nhs.is_valid, r"nhs|national health"),
    NumericId(
        FindingType.DE_TAX_ID,
        (11,),
        idnr.is_valid,
        r"steuer.{0,24}|idnr|tax ?id|tin",
        ("99 999 999 999",),
    ),
    NumericId(
        FindingType.FR_NIR,
        (15,),
        _is_nir,
        r"nir|insee|s.curit. sociale",
        ("999999999999999", "9 99 99 99 999 999 99", "9.99.99.99.999.999.99"),
    ),
    NumericId(FindingType.NL_BSN, (9,), bsn.is_valid, r"bsn|burgerservicenummer|sofi"),
    NumericId(FindingType.PL_PESEL, (11,), pesel.is_valid, r"pesel"),
    NumericId(FindingType.BR_CPF, (11,), cpf.is_valid, r"cpf", ("999.999.999-99",)),
    _other(
        11,
        nn.is_valid,
        r"rijksregister.{0,8}|registre national|nrn|insz|niss",
        ("99.99.99-999.99", "99.99.99 999.99"),
    ),
    _other(13, ahv.is_valid, r"ahv|avs", ("9999999999999", "999.9999.9999.99")),
    _other(10, _is_nordic, r"personnummer|cpr", ("999999-9999",)),
    _other(12, _is_nordic, r"personnummer", ("99999999-9999",)),
    _other(11, fodselsnummer.is_valid, r"f.{1,2}dselsn.{0,8}|personnummer"),
    _other(13, rrn.is_valid, r"rrn|resident registration", ("999999-9999999",)),
    _other(10, rc.is_valid, r"rodn. .{1,3}slo", ("999999/9999",)),
    _other(11, cuit.is_valid, r"cui[tl]", ("99-99999999-9",)),
    _other(9, rut.is_valid, r"ru[tn]", ("99.999.999-9",)),
    _other(9, sin.is_valid, r"sin|social insurance"),
    _other(9, tfn.is_valid, r"tfn|tax file"),
    _other(11, tckimlik.is_valid, r"kimlik|tckn?"),
    _other(13, cnp.is_valid, r"cnp"),
    _other(13, za_idnr.is_valid, r"id (?:number|no|nr)|identity (?:number|no)|sa id"),
    _other(18, ric.is_valid, shapes=("9" * 18,)),
    _other(12, nric.is_valid, r"nric|mykad", ("999999-99-9999",)),
    _other(13, pin.is_valid, shapes=("9-9999-99999-99-9",)),
)


def _checked(is_valid: Valid) -> Callable[[str, Text, int], bool]:
    return lambda value, text, end: _admits(is_valid, compact(value))


RULES = (
    Rule(
        FindingType.UK_NINO,
        r"\b((?:[ACEHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]|B[A-CEHJ-NPR-TW-Z]|G[ACEGHJ-NP-TW-Z])[ \-]?"
        r"[0-9]{2}[ \-]?[0-9]{2}[ \-]?[0-9]{2}[ \-]?[A-D])\b",
        lambda value, text, end: value[:2] not in ("KN", "NK", "NT", "TN", "ZZ"),
    ),
    Rule(FindingType.IN_PAN, r"\b([A-Z]{5}[ \-]?[0-9]{4}[ \-]?[A-Z])\b", _checked(pan.is_valid)),
    Rule(
        FindingType.IT_FISCAL_CODE,
        r"\b([A-Z]{3}[ ]?[A-Z]{3}[ ]?[0-9L-NP-V]{2}[A-EHLMPRST][0-9L-NP-V]{2}[ ]?"
        r"[A-Z][0-9L-NP-V]{3}[A-Z])\b",
        _checked(codicefiscale.is_valid),
    ),
    Rule(
        FindingType.ES_DNI,
        r"\b([0-9]{8}[ \-]?[A-HJ-NP-TV-Z]|[0-9]{2}\.[0-9]{3}\.[0-9]{3}[ \-]?[A-HJ-NP-TV-Z])\b",
        _checked(dni.is_valid),
    ),
    Rule(
        FindingType.ES_DNI,
        r"\b([XYZ][ \-]?[0-9]{7}[ \-]?[A-HJ-NP-TV-Z])\b",
        _checked(nie.is_valid),
    ),
    Rule(
        FindingType.NATIONAL_ID,
        r"\b([A-Z]{4}[0-9]{6}[HM][A-Z]{5}[0-9A-Z][0-9])\b",
        _checked(curp.is_valid),
    ),
    Rule(
        FindingType.NATIONAL_ID,
        r"\b([0-9]{6}[\-+A-F][0-9]{3}[0-9A-FHJ-NPR-Y])\b",
        lambda value, text, end: hetu.is_valid(value),
    ),
    Rule(FindingType.NATIONAL_ID, r"\b([0-9]{17}[Xx])\b", _checked(ric.is_valid)),
    Rule(
        FindingType.NATIONAL_ID,
        r"\b([0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[Kk])\b",
        _checked(rut.is_valid),
    ),
)
