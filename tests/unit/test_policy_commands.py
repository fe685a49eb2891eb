"""`plan`, `apply` and `explain` at the command line: what they say, and their exit codes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.config.load import load
from orchestrator.ledger.audit import AuditLog, DecisionRow
from tests.unit.test_config import copy

DECIDED = DecisionRow(
    time_s=1,
    request_id="r",
    attempt=1,
    workload="assistant",
    key_id="k",
    data_class="internal",
    facts={},
    candidates="",
    chosen=None,
    zone=None,
    denied=None,
    policy_version="v",
    snapshot_version=1,
    quote=None,
)


class Orchestrator:
    """The command line over a state directory of its own."""

    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        self.source = copy(tmp_path / "source")
        settings = self.source / "settings.yaml"
        settings.write_text(settings.read_text().replace(":8100", ":9"))  # nobody answers there

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.source / file).read_text()
        assert old in text
        (self.source / file).write_text(text.replace(old, new, 1))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orchestrator:
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path / "state"))
    return Orchestrator(tmp_path)


def test_apply_says_the_versions_and_a_rollback_goes_back(cli: Orchestrator) -> None:
    first = cli.json("apply", cli.source)
    assert (first["before"], first["held"]) == (None, None)
    cli.edit("workloads.yaml", "usd_per_day: 20", "usd_per_day: 30")
    second = cli.json("apply", cli.source)
    assert second["before"] == first["after"] != second["after"]
    assert cli.json("apply", cli.source)["already"]
    foreseen = cli.json("plan", "--rollback")
    assert (foreseen["before"], foreseen["after"]) == (second["after"], first["after"])
    assert cli.json("apply", "--rollback")["after"] == first["after"]


def test_apply_refuses_what_fails_its_probes_and_leaves_the_old_version(cli: Orchestrator) -> None:
    first = cli.json("apply", cli.source)
    cli.edit("clusters.yaml", "max_data_class: internal", "max_data_class: restricted")
    refused = cli.json("apply", cli.source, code=1)
    assert any("leave" in p["message"] or "stays" in p["message"] for p in refused["problems"])
    assert cli.json("validate", cli.source, code=1)["problems"] == refused["problems"]
    assert cli.json("plan", cli.source, code=1)["problems"] == refused["problems"]
    (cli.source / "probes.yaml").unlink()
    assert cli.json("plan", cli.source)["before"] == first["after"]


def test_plan_shows_the_change_the_moves_and_the_reach(cli: Orchestrator) -> None:
    cli("apply", cli.source)
    assert "no request would move" in cli("plan", cli.source)
    (cli.source / "probes.yaml").unlink()
    cli.edit("clusters.yaml", "max_data_class: internal", "max_data_class: confidential")
    cli.edit("workloads.yaml", "usd_per_gpu_hour: 3.0", "usd_per_gpu_hour: 0.1")
    shown = cli("plan", cli.source)
    assert "~ zones.cloud-eu.max_data_class: internal → confidential" in shown
    assert "! up to confidential data of assistant may newly reach zone cloud-eu (EU)" in shown
    found = cli.json("plan", cli.source)
    assert {(m["workload"], m["rule"]) for m in found["moves"]} == {("assistant", "price")}
    (assistant,) = (g for g in found["groups"] if g["workload"] == "assistant")
    for side in ("before", "after"):
        runs = sum(r["share"] for r in assistant[side]["runs"])
        assert runs + sum(assistant[side]["denied"].values()) == pytest.approx(1)


def test_plan_takes_requests_and_traces_from_files(cli: Orchestrator, tmp_path: Path) -> None:
    cli("apply", cli.source)
    requests = tmp_path / "requests.jsonl"
    requests.write_text('{"workload": "records", "model": "tiny"}\n\n')
    (group,) = cli.json("plan", cli.source, "--requests", requests)["groups"]
    assert group["workload"] == "records"
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n1,5,5\n2,5,9000\n")
    groups = cli.json("plan", cli.source, "--replay", trace)["groups"]
    shares = {g["workload"]: g["requests"] for g in groups}
    assert shares["assistant"] / 4 == 2, "workloads take turns, each in four situations"
    assert "context_length" in groups[0]["before"]["denied"]
    trace.write_text(
        "arrival_s,prompt_tokens,output_tokens,workload\n0,5,5,records\n1,5,5,records\n"
    )
    (group,) = cli.json("plan", cli.source, "--replay", trace)["groups"]
    assert group["workload"] == "records"


def test_plan_takes_the_requests_that_were_decided(cli: Orchestrator, tmp_path: Path) -> None:
    cli("apply", cli.source)
    assert "no request is on record" in cli("plan", cli.source, "--recorded", code=2)
    asked = [
        {"workload": "assistant", "model": "tiny", "content": "confidential", "inflight": {"x": 3}},
        {"workload": "assistant", "model": "tiny", "max_tokens": 9000},
        {"workload": "of-old", "model": "tiny"},
        {"workload": "assistant", "model": ""},
    ]
    with AuditLog(tmp_path / "state" / "audit", "g") as log:
        for number, facts in enumerate(asked):
            for attempt in (1, 2):
                row = replace(DECIDED, workload=facts["workload"], facts=facts, attempt=attempt)
                log.append(replace(row, request_id=f"r-{number}"))
    (group,) = cli.json("plan", cli.source, "--recorded")["groups"]
    assert group["requests"] / 4 == 2, "each in four situations"
    assert "context_length" in group["before"]["denied"]
    assert set(group["before"]["data_classes"]) == {"internal", "confidential"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("requests.jsonl", '{"workload": "records", "model": "tiny"}\n{"model": "x"}\n', ":2: wor"),
        ("requests.jsonl", '{"workload": "nobody", "model": "tiny"}\n', ":1: no workload 'nobody'"),
        ("requests.jsonl", "\n", ":1: no requests"),
        ("trace.csv", "arrival_s,prompt_tokens,output_tokens\nx,1,1\n", ":2: write arrival_s"),
        (
            "trace.csv",
            "arrival_s,prompt_tokens,output_tokens,workload\n0,1,1,nobody\n",
            ":2: no workload 'nobody'",
        ),
    ],
)
def test_a_wrong_line_is_named(
    cli: Orchestrator, tmp_path: Path, name: str, text: str, message: str
) -> None:
    cli("apply", cli.source)
    (tmp_path / name).write_text(text)
    option = "--replay" if name == "trace.csv" else "--requests"
    assert f"{name}{message}" in cli("plan", cli.source, option, tmp_path / name, code=2)


def test_plan_and_apply_want_one_thing_at_a_time(cli: Orchestrator) -> None:
    assert "--against" in cli("plan", cli.source, code=2)
    assert "no request would move" in cli("plan", cli.source, "--against", cli.source)
    cli("plan", code=2)
    cli("apply", code=2)
    cli("apply", cli.source, "--rollback", code=2)
    assert "no previous version" in cli("apply", "--rollback", code=2)


def test_apply_says_who_still_holds_the_old_version(
    cli: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = load(cli.source).version
    states = iter(
        [
            {"config_version": "old"},
            {"config_version": version, "gateways": {"a": {"config_version": "old"}, "b": {}}},
            {"config_version": version, "gateways": {"a": {"config_version": version}}},
        ]
    )
    monkeypatch.setattr("orchestrator.cli.apply.live_state", lambda loaded: next(states))
    taken = cli.json("apply", cli.source)
    assert taken["held"] == {"controller": version, "gateway a": version}
    assert taken["late"] == []
    monkeypatch.setattr("orchestrator.cli.apply.TAKEN_WITHIN_S", 0)
    late = {"config_version": version, "gateways": {"a": {"config_version": "old"}, "b": {}}}
    monkeypatch.setattr("orchestrator.cli.apply.live_state", lambda loaded: late)
    assert "gateway a (old)" in cli("apply", cli.source, code=1)


def test_explain_tells_where_each_rule_comes_from(cli: Orchestrator, tmp_path: Path) -> None:
    cli.edit("workloads.yaml", "    data_class: restricted\n", "    inherits: careful\n")
    (cli.source / "profiles.yaml").write_text(
        "profiles:\n  - {name: careful, data_class: restricted, priority: 70}\n"
    )
    request = tmp_path / "request.json"
    request.write_text('{"workload": "records", "model": "tiny"}')
    command = ("explain", "--config", cli.source, "--request", request)
    rules = cli.json(*command)["rules"]
    assert rules["data_class"] == {"value": "restricted", "from": "profile careful"}
    assert rules["priority"] == {"value": 70, "from": "profile careful"}
    assert rules["allowed_zones"] == {"value": ["onprem"], "from": "workload"}
    assert rules["budget"] == {"value": None, "from": "default"}
    assert "profile careful" in cli(*command)
