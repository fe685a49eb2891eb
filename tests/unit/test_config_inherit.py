"""Workloads inherit from profiles, and what is wrong in a profile is reported there."""

from pathlib import Path

import pytest

from orchestrator.config.data_class import DataClass
from orchestrator.config.load import load
from tests.configurations import company, line, problems

HEIRS = """\
workloads:
  - name: first
    inherits: {profile}
  - name: second
    inherits: {profile}
"""


def test_the_nearest_profile_wins_and_own_fields_win_whole(tmp_path: Path) -> None:
    text = """\
profiles:
  - name: far
    inherits: company
    priority: 7
    slo: {ttft_p95_s: 9, itl_p95_s: 1}
  - name: near
    inherits: far
    priority: 8
workloads:
  - name: extra
    inherits: near
    slo: {ttft_p95_s: 3}
"""
    loaded = load(company(tmp_path, text=text))
    (extra,) = [w for w in loaded.configuration.workloads if w.name == "extra"]
    assert (extra.priority, extra.slo.ttft_p95_s, extra.slo.itl_p95_s) == (8, 3, None)
    assert extra.data_class is DataClass.INTERNAL
    assert loaded.inherited["extra"] == {
        "priority": "near",
        "data_class": "company",
        "models": "company",
        "allowed_zones": "company",
        "when_infeasible": "company",
    }


def test_a_profile_that_nobody_inherits_is_fine(tmp_path: Path) -> None:
    load(company(tmp_path, text="profiles:\n  - name: idle\n    priority: 3\n"))


def test_no_profile_is_written_as_nothing(tmp_path: Path) -> None:
    text = "profiles:\n  - name: idle\n    inherits:\n"
    load(company(tmp_path, text=text))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("priority: high", "profiles[0].priority: input should be a valid integer"),
        ("priority: 101", "profiles[0].priority: input should be less than or equal to 100"),
        ("prioritty: 1", "profiles[0].prioritty: unknown field; did you mean 'priority'?"),
        ("slo: {ttft_p95: 1, ttft_p95_s: 1}", "profiles[0].slo.ttft_p95: unknown field"),
        ("slo: {itl_p95_s: 1}", "profiles[0].slo.ttft_p95_s: is missing"),
        ("models: [chat-huge]", "model 'chat-huge' is not defined"),
        ("allowed_zones: [moon]", "zone 'moon' is not defined"),
        ("preferred_zones: [paris]", "add it to allowed_zones"),
        ("jurisdictions: [AT]", "they are under DE-BE, DE-SN"),
        ("when_infeasible: {min_quality: 0.5}", "lower it or leave it out"),
        ("markers: [salary, SALARY]", "is a marker already"),
    ],
)
def test_what_is_wrong_in_a_profile_is_reported_there_once(
    tmp_path: Path, field: str, message: str
) -> None:
    text = f"profiles:\n  - name: extra\n    inherits: company\n    {field}\n"
    directory = company(tmp_path, text=text)
    (directory / "heirs.yaml").write_text(HEIRS.format(profile="extra"))
    (problem,) = problems(directory)
    assert problem.startswith(f"more.yaml:{line(text, field)}: ")
    assert message in problem


def test_what_no_profile_gives_is_missing_in_the_heir(tmp_path: Path) -> None:
    text = "profiles:\n  - name: bare\n    priority: 3\n" + HEIRS.format(profile="bare")
    found = problems(company(tmp_path, text=text))
    starts = {f"more.yaml:{line(text, f'- name: {name}')}" for name in ("first", "second")}
    assert {":".join(p.split(":")[:2]) for p in found} == starts
    assert {p.split(".")[-1] for p in found} == {
        f"{field}: is missing; add it" for field in ("models", "allowed_zones", "slo")
    }


def test_a_profile_that_does_not_exist_is_reported_at_every_heir(tmp_path: Path) -> None:
    text = HEIRS.format(profile="compny")
    first, second = problems(company(tmp_path, text=text))
    assert first.startswith("more.yaml:3: profile 'compny' is not defined; defined are: company,")
    assert second.startswith("more.yaml:5: ")


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        ({"a": "a"}, "a inherits a"),
        ({"a": "b", "b": "a"}, "a inherits b inherits a"),
        ({"x": "a", "a": "b", "b": "c", "c": "a"}, "a inherits b inherits c inherits a"),
    ],
)
def test_a_circle_is_reported_once_however_many_inherit_from_it(
    tmp_path: Path, lines: dict[str, str], circle: str
) -> None:
    text = "profiles:\n" + "".join(
        f"  - name: {name}\n    inherits: {parent}\n" for name, parent in lines.items()
    )
    closing = line(text, f"inherits: {list(lines.values())[-1]}")
    (problem,) = problems(company(tmp_path, text=text + HEIRS.format(profile="a")))
    assert problem == f"more.yaml:{closing}: a circle: {circle}; break it"


def test_a_very_long_line_of_profiles_is_followed_to_its_end(tmp_path: Path) -> None:
    many = 5000
    text = "profiles:\n  - name: p0\n    inherits: company\n    priority: 11\n" + "".join(
        f"  - name: p{n}\n    inherits: p{n - 1}\n" for n in range(1, many)
    )
    text += HEIRS.format(profile=f"p{many - 1}")
    workloads = load(company(tmp_path, text=text)).configuration.workloads
    assert [w.priority for w in workloads if w.name in ("first", "second")] == [11, 11]


def test_two_profiles_of_one_name(tmp_path: Path) -> None:
    text = "profiles:\n  - name: company\n"
    (problem,) = [p for p in problems(company(tmp_path, text=text)) if "twice" in p]
    assert "'company' is defined twice; rename one" in problem


@pytest.mark.parametrize("name", ["[a]", "{a: b}", "3", "null", "''"])
def test_a_profile_whose_name_is_none(tmp_path: Path, name: str) -> None:
    found = problems(company(tmp_path, text=f"profiles:\n  - name: {name}\n"))
    assert all(p.startswith("more.yaml:2: profiles[0].name: ") for p in found)
