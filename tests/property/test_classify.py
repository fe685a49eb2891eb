"""Whatever a request holds: reading it never fails, never takes long, and only ever raises."""

import base64
from itertools import pairwise
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.classify import Classification, Classifier
from orchestrator.classify.findings import FindingType
from orchestrator.classify.normalize import normalize, origins
from orchestrator.classify.scanner import BLOBS, FORMS, RUNS, Scanner, pulled
from orchestrator.classify.text import Text
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import ClassifierSpec

CASES = settings(max_examples=300, deadline=None)
CLASSIFIERS = [
    Classifier(
        ClassifierSpec(
            personal_data=personal_data, secrets=secrets, markers=markers, unreadable="internal"
        ),
        {"w": ["Project Falcon", "猎鹰"]},
    )
    for personal_data, secrets, markers in [
        ("confidential", "restricted", "restricted"),
        ("restricted", "internal", "confidential"),
    ]
]

SENSITIVE = [
    "jane.doe@example.org",
    "4111 1111 1111 1111",
    "4111111111111112",
    "SSN 536904399",
    "GB29NWBK60161331926819",
    "+49 30 1234567",
    "10.20.30.40",
    "fe80::1ff:fe23:4567:890a",
    "Hi Jane,",
    "My name is Jane Doe",
    "221B Baker Street",
    "password: hunter2",
    "ghp_" + "a1B2c3D4e5" * 4,
    "aws key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "project falcon",
    "four one one one one one one one one one one one one one one one",
    base64.b64encode(b"jane.doe@example.org").decode(),
    "jane%2edoe%40example.org",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "jane.doe\x02@example.org",
]
FRAGMENTS = st.sampled_from(
    [
        *SENSITIVE,
        *(value[: len(value) // 2] for value in SENSITIVE),
        *(value[len(value) // 2 :] for value in SENSITIVE),
        *("\0", "\n", " ", ": ", "%", "\\u00", "\u200b", "é", "４", "猎鹰", "0", "-", "@", "a"),
        *("password", "name is ", "IBAN ", "address ", "aws ", "key=", "born ", "(", "ID number "),
    ]
)
STRINGS = st.one_of(
    st.text(), st.sampled_from(SENSITIVE), st.lists(FRAGMENTS, max_size=8).map("".join)
)
KEYS = st.one_of(st.sampled_from(["content", "prompt", "input", "type", "image_url"]), STRINGS)
SCALARS = st.one_of(STRINGS, st.integers(), st.floats(allow_nan=True), st.booleans(), st.none())
BODIES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)),
    max_leaves=20,
)


def no_time_passes() -> float:
    return 0.0


def classify(classifier: Classifier, body: Any) -> Classification:
    return classifier.classify("w", body, no_time_passes)


@CASES
@given(BODIES)
def test_it_reads_any_body(body: object) -> None:
    result = classify(CLASSIFIERS[0], body)
    assert result.failed is None
    assert set(result.counts) <= {type.value for type in FindingType}
    assert (result.data_class is DataClass.PUBLIC) == (not result.counts)


@CASES
@given(st.sampled_from(CLASSIFIERS), st.lists(STRINGS), STRINGS, st.data())
def test_a_string_more_never_lowers_the_class(
    classifier: Classifier, strings: list[str], added: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(strings)))
    more = [*strings[:place], added, *strings[place:]]
    before, alone, after = (classify(classifier, b) for b in (strings, [added], more))
    assert after.data_class == max(before.data_class, alone.data_class)


@CASES
@given(st.sampled_from(CLASSIFIERS), BODIES, BODIES)
def test_a_field_more_never_lowers_the_class(
    classifier: Classifier, body: object, added: object
) -> None:
    with_more = classify(classifier, {"body": body, "metadata": added})
    assert with_more.data_class >= classify(classifier, {"body": body}).data_class
    assert with_more.data_class >= classify(classifier, {"metadata": added}).data_class


@CASES
@given(st.sampled_from(SENSITIVE), st.lists(st.text(), max_size=4), st.integers(0, 4))
def test_no_other_strings_hide_a_sensitive_one(value: str, others: list[str], place: int) -> None:
    body = {"messages": [*others[:place], value, *others[place:]]}
    alone, among = classify(CLASSIFIERS[0], {"messages": [value]}), classify(CLASSIFIERS[0], body)
    assert set(alone.counts) <= set(among.counts)


@CASES
@given(BODIES, st.integers(1, 5))
def test_nothing_is_read_after_the_time_is_spent(body: object, budget: int) -> None:
    asked = 0

    def clock() -> float:
        nonlocal asked
        asked += 1
        return float(asked)

    spec = ClassifierSpec(budget_s=budget)
    result = Classifier(spec, {}).classify("w", [body] * 5000, clock)
    assert asked <= budget + 2
    assert result.failed == "timeout"
    assert result.data_class is DataClass.RESTRICTED


HOSTILE = {
    "digits": "41111111",
    "groups": "1 22 333 ",
    "words": "four one ",
    "mailboxes": "a@b.",
    "base64": base64.b64encode(base64.b64encode(b"a@b.co and 4111 ")).decode(),
    "hex": "3431",
    "percent": "%34a",
    "escapes": "\\u0034",
    "key names": "api_key=",
    "addresses": "12 Aa Bb ",
    "names": "name is Aa ",
    "urls": "a://b:",
    "tokens": "eyJabcdefghij.",
    "colons": "1:a:",
    "invisible": "4\u200b",
    "expanding": "\ufdfa",
    "marks": "e\u0301\u0302",
    "controls": "4\x01",
    "separators": "4\0",
    "mixed": "Mr. Aa b@c.d 4111-1 sk-a password=q 1.2.3. born ",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_detector_asks_for_the_time_as_often_as_it_finds_something(unit: str) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    text = Text(normalize(unit * 2000).encode(), check)
    for detector in (*FORMS, *RUNS, BLOBS):
        asked = 0
        found = sum(1 for _ in detector.look(text))
        assert found <= 20 * asked, detector.trigger


@CASES
@given(st.lists(FRAGMENTS, max_size=10).map("".join))
def test_what_a_detector_finds_pulls_its_trigger(text: str) -> None:
    data = normalize(text).encode("utf-8", "replace")
    for detector in (*FORMS, *RUNS, BLOBS):
        if any(detector.look(Text(data, lambda: None))):
            assert re2.search(detector.trigger.encode(), data), detector.trigger


@CASES
@given(st.lists(FRAGMENTS | st.text(max_size=20), max_size=10).map("".join), st.integers(1, 70))
def test_all_triggers_at_once_say_what_each_alone_does(text: str, run: int) -> None:
    data = normalize(f"{text} {'a-1/' * run}"[: len(text) + run]).encode("utf-8", "replace")
    alone = {d for d in (*FORMS, *RUNS, BLOBS) if re2.search(d.trigger.encode(), data)}
    assert set(pulled(Text(data, lambda: None))) == alone


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_all_triggers_at_once_hold_out_against_hostile_text(unit: str) -> None:
    data = normalize(unit * (16_000 // len(unit))).encode()
    alone = {d for d in (*FORMS, *RUNS, BLOBS) if re2.search(d.trigger.encode(), data)}
    assert set(pulled(Text(data, lambda: None))) == alone


@CASES
@given(st.text())
def test_normalized_text_is_normal_and_knows_its_origins(text: str) -> None:
    once = normalize(text)
    places = origins(text)
    assert normalize(once) == once
    assert len(places) == len(once) + 1
    assert places == sorted(places)
    assert all(normalize(text[place]) for place in places[:-1])


@CASES
@given(STRINGS)
def test_places_are_within_the_text(text: str) -> None:
    findings = Scanner(["Project Falcon"]).find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in findings)
    assert all(a.end <= b.start for a, b in pairwise(findings))
