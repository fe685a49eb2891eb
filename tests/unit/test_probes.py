"""Probes: a platform team's own tests of its rules."""

from pathlib import Path

import pytest

from orchestrator.cli.checks import classify_by
from orchestrator.config.data_class import DataClass
from orchestrator.config.load import ConfigurationError, load
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.probe import CODES, Classify, Result, failures, run_probes
from orchestrator.policy.situation import affordable_usd_per_gpu_hour
from tests.unit.test_config import copy

BURSTING = "fleet: {bursting: {assistant: cloud-cpu}}"


def written(tmp_path: Path, text: str) -> Path:
    directory = copy(tmp_path)
    (directory / "probes.yaml").write_text(text)
    return directory


def one(workload: str, *more: str, request: str = "") -> str:
    lines = [f"request: {{workload: {workload}, model: tiny{request}}}", *more]
    return "probes:\n  - name: p\n" + "".join(f"    {line}\n" for line in lines)


def run(directory: Path, classify: Classify | None = None) -> list[Result]:
    return run_probes(directory, load(directory), classify)


def found(tmp_path: Path, text: str) -> list[str]:
    """What the probes find, without the path."""
    directory = written(tmp_path, text)
    return [f"{p.path.name}:{p.line}: {p.message}" for p in failures(directory, load(directory))]


def test_the_local_configuration_does_what_its_probes_expect(tmp_path: Path) -> None:
    directory = copy(tmp_path)
    results = run(directory, classify_by(load(directory)))
    assert len(results) > 5
    assert [r for r in results if r.problems or r.not_run] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "broken"),
    [
        (
            "workloads.yaml",
            "data_class: restricted\n    models: [tiny]\n    allowed_zones: [onprem]",
            "data_class: internal\n    models: [tiny]\n    allowed_zones: [onprem, cloud-eu]",
            "patient records never leave the building",
        ),
        (
            "clusters.yaml",
            "max_data_class: internal",
            "max_data_class: confidential",
            "what a caller calls confidential stays in the building",
        ),
        (
            "workloads.yaml",
            "usd_per_gpu_hour: 3.0",
            "usd_per_gpu_hour: 5.0",
            "a cloud above the price ceiling takes nothing",
        ),
    ],
)
def test_the_local_probes_notice_rules_that_were_loosened_or_tightened(
    tmp_path: Path, file: str, old: str, new: str, broken: str
) -> None:
    failed = {r.name for r in run(copy(tmp_path, file, old, new)) if r.problems}
    assert broken in failed


def test_a_failure_names_line_probe_and_rule(tmp_path: Path) -> None:
    text = one("records", "expect:", "  data_class: restricted", "  zone: cloud-eu")
    assert found(tmp_path, text) == [
        "probes.yaml:6: probe 'p': expected zone cloud-eu, got onprem "
        "(zone 'cloud-eu' is not among the allowed zones of workload 'records')"
    ]


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ("pool: cloud-cpu", "expected pool cloud-cpu, got onprem-cpu"),
        ("denied: residency", "expected denied: residency, got onprem"),
        ("data_class: restricted", "expected restricted data, got internal"),
        ("rejected: {cloud-cpu: price}", "rejected by price, got burst"),
        ("rejected: {onprem-cpu: price}", "rejected by price, got feasible"),
        ("rejected: {onprem-cpu: prize}", "no rule is called 'prize'"),
        ("never_zones: [cloud-eu]", "no lasting rule keeps internal data from cloud-cpu/tiny-bf16"),
    ],
)
def test_each_expectation_can_fail(tmp_path: Path, expect: str, message: str) -> None:
    (problem,) = found(
        tmp_path, one("assistant", "fleet: {situation: all_ready}", f"expect: {{{expect}}}")
    )
    assert message in problem


@pytest.mark.parametrize(
    ("fleet", "expect"),
    [
        ("{}", "{zone: onprem, rejected: {cloud-cpu: burst}}"),
        ("{down: [onprem-cpu]}", "{denied: no_capacity, rejected: {onprem-cpu: not_ready}}"),
        ("{situation: home_down}", "{zone: cloud-eu}"),
        ("{bursting: {assistant: cloud-cpu}}", "{zone: cloud-eu}"),
        ("{bursting: {assistant: cloud-cpu}, down: [cloud-cpu]}", "{zone: onprem}"),
        (
            "{bursting: {assistant: cloud-cpu}, usd_per_gpu_hour: {cloud-cpu: 9}}",
            "{rejected: {cloud-cpu: price}}",
        ),
        ("{situation: all_ready}", "{zone: [cloud-eu, onprem]}"),
    ],
)
def test_a_fleet_can_be_taken_to_be_anything(tmp_path: Path, fleet: str, expect: str) -> None:
    assert found(tmp_path, one("assistant", f"fleet: {fleet}", f"expect: {expect}")) == []


def test_a_zone_that_only_the_state_of_the_fleet_keeps_data_from_is_not_one_it_never_reaches(
    tmp_path: Path,
) -> None:
    """That the cloud is down keeps a request at home today, and is no rule."""
    text = one("assistant", "fleet: {down: [cloud-cpu]}", "expect: {never_zones: [cloud-eu]}")
    assert len(found(tmp_path, text)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (one("assistant", "expect: {}"), "probes.yaml:4: probes[0].expect: nothing is expected"),
        (
            one("assistant", "expect: {denied: residency, zone: onprem}"),
            "probes.yaml:4: probes[0].expect: a request that is denied runs nowhere",
        ),
        (one("assistant", "expect: {zon: onprem}"), "did you mean 'zone'"),
        (one("assistant", "fleet: {situation: at_war}", "expect: {zone: onprem}"), "at_rest"),
        (one("nobody", "expect: {zone: onprem}"), "probes.yaml:3: probe 'p': workload 'nobody'"),
        (one("assistant", "expect: {zone: moon}"), "probes.yaml:4: probe 'p': zone 'moon' is not"),
        (
            one("records", "fleet: {bursting: {records: cloud-cpu}}", "expect: {zone: onprem}"),
            "probes.yaml:4: probe 'p': workload 'records' never bursts to 'cloud-cpu'",
        ),
        ("probes: []\n", "probes.yaml:1: probes: "),
        ("probes: [\n", "not YAML"),
    ],
)
def test_a_mistake_in_a_probe_is_reported_at_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    directory = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        run(directory)
    (problem,) = caught.value.problems
    assert message in f"{problem.path.name}:{problem.line}: {problem.message}"


def test_two_probes_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    text = one("assistant", "expect: {zone: onprem}")
    with pytest.raises(ConfigurationError, match="rename"):
        run(written(tmp_path, text + text.removeprefix("probes:\n")))


def test_without_a_probes_file_there_is_nothing_to_run(tmp_path: Path) -> None:
    directory = copy(tmp_path)
    (directory / "probes.yaml").unlink()
    assert run(directory) == []


def test_content_is_classified_first(tmp_path: Path) -> None:
    def classify(workload: str, content: str) -> DataClass:
        assert workload == "assistant"
        return DataClass.RESTRICTED if "IBAN" in content else DataClass.PUBLIC

    text = one("assistant", BURSTING, "expect: {zone: onprem, data_class: restricted}")
    directory = written(tmp_path, text.replace("tiny}", "tiny, content: 'my IBAN is secret'}"))
    (result,) = run(directory, classify)
    assert (result.problems, result.not_run) == ((), None)
    (result,) = run(directory, lambda workload, content: DataClass.PUBLIC)
    assert result.problems
    assert "secret" not in "".join(p.message for p in result.problems)


def test_content_without_a_classifier_is_not_run_and_never_passed(tmp_path: Path) -> None:
    text = one("assistant", "expect: {zone: onprem}", request=", content: hello")
    (result,) = run(written(tmp_path, text))
    assert result.not_run
    assert "classifier" in result.not_run


def test_probes_know_every_rule() -> None:
    assert {"zone_not_allowed", "data_class", "burst", "price", "not_ready"} <= set(CODES)


def test_an_assumed_price_is_one_that_every_bursting_workload_allows(tmp_path: Path) -> None:
    loaded = load(
        copy(tmp_path, "workloads.yaml", "usd_per_gpu_hour: 3.0", "usd_per_gpu_hour: 0.4")
    )
    usd = affordable_usd_per_gpu_hour(Catalogue(loaded.configuration, "v"), "cloud-cpu")
    assert 0 < usd <= 0.4
