"""What is found in a text, however it is written, and what is not."""

import base64
from typing import Any
from urllib.parse import quote

import pytest

from orchestrator.classify import Classification, Classifier
from orchestrator.classify.scanner import Scanner
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import ClassifierSpec

PATIENT = ClassifierSpec(budget_s=60)
"""For tests of what is found, on however slow a machine."""
CARD, MAIL = "4111 1111 1111 1111", "jane.doe@example.org"
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


def classify(body: object, phrases: list[str] | None = None, **spec: Any) -> Classification:
    classifier = Classifier(PATIENT.model_copy(update=spec), {"w": phrases or []})
    return classifier.classify("w", body)


def chat(content: object) -> dict[str, object]:
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], "stream": True}


def types(text: str) -> set[str]:
    return {finding.type.value for finding in Scanner().find(text)}


FOUND = {
    "payment_card": [
        "pay with 4111111111111111",
        CARD,
        "5555-5555-5555-4444",
        "378282246310005",
        "my card is 30569309025904",
        "credit card 4111 1111 1111 1112, with a slip of the pen",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819 please",
        "de89370400440532013000",
        "IBAN: NL55 TRIO 0123 4567 89",
    ],
    "us_ssn": ["536-90-4399", "his SSN is 536904399", "social security number: 536 90 4399"],
    "uk_nino": ["NI number: AB 12 34 56 C"],
    "uk_nhs": ["NHS number 9434765919"],
    "de_tax_id": ["Steuer-ID 86095742719", "86 095 742 719"],
    "fr_nir": ["2 95 10 99 126 111 93"],
    "es_dni": ["54362315K", "NIE X-2482300-W"],
    "it_fiscal_code": ["RCCMNL83S18D969H"],
    "nl_bsn": ["BSN 111222333"],
    "pl_pesel": ["PESEL: 44051401359"],
    "in_aadhaar": ["2341 2341 2346", "Aadhaar no. 234123412346"],
    "in_pan": ["ACUPA7085R"],
    "br_cpf": ["390.533.447-05", "CPF 39053344705"],
    "national_id": ["85.07.30-033.28", "756.9217.0769.85", "880320-0016", "SIN 123 456 782"],
    "email": ["to jane.doe+x@mail.example.co.uk.", "jane (at) example (dot) org"],
    "phone": ["+49 30 1234567", "(415) 555-2671", "call me at 555 1234", "020 7946 0958"],
    "ip_address": ["10.20.30.40", "2001:db8:85a3::8a2e:370:7334"],
    "date_of_birth": ["DOB: 01/02/1980", "born on 3 March 1975"],
    "person_name": ["My name is Jane Doe", "Dr. Jane Doe", "Jane Doe lives at home"],
    "postal_address": [
        "221B Baker Street",
        "PO Box 1234",
        "Springfield, IL 62704",
        "Hauptstraße 12",
        "Rua Augusta 1508",
        "London SW1A 2AA",
    ],
    "document_number": ["passport number P4789023X", "patient ID PHX-839221"],
    "private_key": ["-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN PGP PRIVATE KEY BLOCK-----"],
    "cloud_key": ["AKIAIOSFODNN7EXAMPLE", "AIza" + "Sy0123456789abcdefghijklmnopqrstuvw"],
    "access_token": [
        GITHUB,
        "glpat-abcDEF123456ghiJKL78",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "sk-proj-" + "Ab3dEf6h" * 5,
    ],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"],
    "connection_string": [
        "postgres://app:s3cret@db:5432/app",
        "Server=db;User Id=sa;Password=Pa55!",
    ],
    "api_key": ['api_key = "9f8Ac3b2d1E0f4a5b6c7"', "Authorization: Bearer abcDEF0123456789xyz"],
    "password": ["password: hunter2", "the password is Tr0ub4dor&3", 'DB_PASSWORD="s3cr3t!!"'],
    "unreadable": ["![chart](data:image/png;base64,iVBORw0KGgo=)"],
}


@pytest.mark.parametrize(("type", "text"), [(t, text) for t in FOUND for text in FOUND[t]])
def test_it_finds(type: str, text: str) -> None:
    assert type in types(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "4111 1111 1111 1112",
        "order 1234567890, invoice 20240102-17",
        "ISBN 978-3-16-148410-0, version 1.2.3.4, pi is 3.14159265358979",
        "2024-01-02 10:11:12 GET 127.0.0.1:8000 and 0.0.0.0",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "git clone git@github.com:org/repo.git",
        "password = input('Password: '); api_key = os.environ['API_KEY']",
        "the password must have at least eight characters",
        "def f(token: str, password: str) -> std::vector<int>",
        "George Washington crossed the Delaware in 1776.",
        "Data: one, two, three little pigs",
        "see RFC 2616 Section 3.7",
    ],
)
def test_harmless_text_raises_nothing(text: str) -> None:
    assert classify(chat(text)) == Classification(DataClass.PUBLIC)


def digit_words(text: str) -> str:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return " ".join(words[int(c)] if c.isdigit() else c for c in text)


OBFUSCATIONS = {
    "full width": lambda v: "".join(chr(ord(c) + 0xFEE0) if c > " " else c for c in v),
    "other digits": lambda v: "".join(chr(0x0660 + int(c)) if c.isdigit() else c for c in v),
    "spaced out": " ".join,
    "dotted": ".".join,
    "odd dashes": lambda v: v.replace(" ", "\u2011").replace("-", "\u2011"),
    "odd spaces": lambda v: v.replace(" ", "\u00a0").replace("-", "\u2009-\u2009"),
    "zero width inside": "\u200b".join,
    "soft hyphens inside": "\u00ad".join,
    "control characters inside": "\x02".join,
    "Cyrillic look-alikes": lambda v: v.translate(
        str.maketrans("aeopcxABEKMHOPCTX", "аеорсхАВЕКМНОРСТХ")
    ),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 in a sentence": lambda v: base64.b64encode(f"write to {v} today".encode()).decode(),
    "hex": lambda v: v.encode().hex(),
    "percent": lambda v: "".join(f"%{b:02x}" for b in v.encode()),
    "quoted": quote,
    "JSON escapes": lambda v: "".join(f"\\u{ord(c):04x}" for c in v),
    "digits as words": digit_words,
}


@pytest.mark.parametrize("how", OBFUSCATIONS)
@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("payment_card", "4111111111111111"),
        ("payment_card", CARD),
        ("us_ssn", "536-90-4399"),
        ("iban", "GB29NWBK60161331926819"),
        ("ip_address", "86.231.85.193"),
        ("email", MAIL),
    ],
)
def test_it_finds_what_is_written_in_another_way(how: str, type: str, value: str) -> None:
    text = f"The value is {OBFUSCATIONS[how](value)}, thank you."
    assert type in types(text)


def test_text_that_is_encoded_twice_cannot_be_read() -> None:
    once = base64.b64encode(b"please write to jane at the usual place")
    twice = base64.b64encode(once).decode()
    assert classify(chat(twice)).counts == {"unreadable": 1}
