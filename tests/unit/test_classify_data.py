"""The classifier on labelled and on harmless text, where such data lies beside the project."""

import pytest

from tests.benchmarks import classify as bench

needs_labels = pytest.mark.skipif(
    not (bench.DATA / bench.SPANS).exists(), reason=f"no labelled text in {bench.DATA}"
)
needs_prompts = pytest.mark.skipif(
    not any((bench.DATA / file).exists() for file in bench.HARMLESS),
    reason=f"no harmless prompts in {bench.DATA}",
)
FORMED = [
    "CREDIT_CARD",
    "IBAN_CODE",
    "US_SSN",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "IP_ADDRESS",
]


@needs_labels
@pytest.mark.parametrize("label", FORMED)
def test_values_with_a_form_are_found(label: str) -> None:
    assert bench.spans()["recall"][label]["of_its_type"] >= 0.99


@needs_labels
def test_values_with_a_form_are_found_however_they_are_written() -> None:
    recall = bench.written_otherwise()
    values = recall.pop("values")
    for how, by_type in recall.items():
        missed = sum(values[type] * (1 - share) for type, share in by_type.items())
        assert missed <= 0.01 * sum(values.values()), how


@needs_prompts
def test_hardly_any_harmless_prompt_is_raised() -> None:
    for file, figures in bench.false_alarms().items():
        assert figures["share"] < 0.01, file
