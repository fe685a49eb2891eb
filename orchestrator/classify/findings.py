"""What can be found. The names are a closed list, so that they can be labels of metrics."""

from bisect import bisect
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What decides the class; the names are those of `ClassifierSpec`."""

    PERSONAL_DATA = "personal_data"
    SECRETS = "secrets"
    MARKERS = "markers"
    UNREADABLE = "unreadable"


class FindingType(StrEnum):
    """In order of precedence: of two findings in one place the earlier type stands."""

    PRIVATE_KEY = "private_key"
    CONNECTION_STRING = "connection_string"
    JWT = "jwt"
    CLOUD_KEY = "cloud_key"
    ACCESS_TOKEN = "access_token"  # noqa: S105
    API_KEY = "api_key"
    PASSWORD = "password"  # noqa: S105
    MARKER = "marker"
    UNREADABLE = "unreadable"
    EMAIL = "email"
    IBAN = "iban"
    IT_FISCAL_CODE = "it_fiscal_code"
    FR_NIR = "fr_nir"
    PAYMENT_CARD = "payment_card"
    US_SSN = "us_ssn"
    IN_AADHAAR = "in_aadhaar"
    IN_PAN = "in_pan"
    UK_NINO = "uk_nino"
    UK_NHS = "uk_nhs"
    DE_TAX_ID = "de_tax_id"
    ES_DNI = "es_dni"
    NL_BSN = "nl_bsn"
    PL_PESEL = "pl_pesel"
    BR_CPF = "br_cpf"
    NATIONAL_ID = "national_id"
    DATE_OF_BIRTH = "date_of_birth"
    IP_ADDRESS = "ip_address"
    DOCUMENT_NUMBER = "document_number"
    PHONE = "phone"
    POSTAL_ADDRESS = "postal_address"
    PERSON_NAME = "person_name"

    @property
    def kind(self) -> Kind:
        return _KINDS.get(self, Kind.PERSONAL_DATA)


_KINDS = {
    FindingType.MARKER: Kind.MARKERS,
    FindingType.UNREADABLE: Kind.UNREADABLE,
    **dict.fromkeys(
        (
            FindingType.PRIVATE_KEY,
            FindingType.CONNECTION_STRING,
            FindingType.JWT,
            FindingType.CLOUD_KEY,
            FindingType.ACCESS_TOKEN,
            FindingType.API_KEY,
            FindingType.PASSWORD,
        ),
        Kind.SECRETS,
    ),
}
_RANK = {kind: rank for rank, kind in enumerate(FindingType)}


@dataclass(frozen=True, slots=True)
class Finding:
    """Where something was found; never what."""

    type: FindingType
    start: int
    end: int


def without_overlaps(findings: list[Finding]) -> list[Finding]:
    """One finding per place, in order of place; of one type the longer stands."""
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (_RANK[f.type], f.start - f.end, f.start)):
        place = bisect(kept, finding.start, key=lambda f: f.start)
        clear_before = place == 0 or kept[place - 1].end <= finding.start
        if clear_before and (place == len(kept) or finding.end <= kept[place].start):
            kept.insert(place, finding)
    return kept
