"""`plan --replay`: a trace through the fleets of both rules, side by side."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from tests.configurations import CLUSTERS

SIMULATED = CLUSTERS / "simulated"
HEADER = "arrival_s,prompt_tokens,output_tokens"
Plan = Callable[..., Result]


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """More than the site can serve, for five minutes."""
    rows = (f"{n / 25},800,100,{'records' if n % 5 == 0 else 'assistant'}" for n in range(25 * 300))
    trace = tmp_path / "busy.csv"
    trace.write_text("\n".join([f"{HEADER},workload", *rows]) + "\n")
    return trace


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the rules, to be changed."""
    return Path(shutil.copytree(SIMULATED, tmp_path / "changed"))


def edit(directory: Path, old: str, new: str) -> None:
    (file,) = (f for f in directory.glob("*.yaml") if old in f.read_text())
    file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "120")

    def plan(directory: Path, *words: str | Path) -> Result:
        against = ("--against", SIMULATED)
        return CliRunner().invoke(app, ["plan", *map(str, (directory, *against, *words))])

    return plan


def rows(result: Result) -> list[str]:
    return [line.strip() for line in result.stdout.splitlines()]


def simulated(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["simulated"]


def test_a_lower_ceiling_saves_the_dollars_of_bursts_and_costs_objectives(
    plan: Plan, changed: Path, busy: Path
) -> None:
    edit(changed, "price_ceiling: {usd_per_gpu_hour: 3}", "price_ceiling: {usd_per_gpu_hour: 0.01}")
    found = simulated(plan(changed, "--replay", busy, "--json"))
    before, after = found["before"], found["after"]
    assert before["by_workload"]["assistant"]["bursts"] >= 1
    assert after["by_workload"]["assistant"]["bursts"] == 0
    assert before["cost_usd"]["cloud"] > 0 == after["cost_usd"]["cloud"]
    assert set(before["by_workload"]["assistant"]["share_by_zone"]) == {"site", "cloud-eu"}
    assert set(after["by_workload"]["assistant"]["share_by_zone"]) == {"site"}
    assert before["slo_attainment"] > after["slo_attainment"]
    shown = plan(changed, "--replay", busy)
    assert shown.exit_code == 0, shown.output
    (row,) = (line for line in rows(shown) if line.startswith("assistant") and "%" in line)
    assert re.fullmatch(
        r"assistant +\S+ → \S+ +\d+ → \d+ +\d+ → 0 +site .*, cloud-eu .* → site 100%", row
    )


def test_the_same_rules_come_to_the_same(plan: Plan, changed: Path, busy: Path) -> None:
    found = simulated(plan(changed, "--replay", busy, "--json"))
    for side in found.values():
        assert side.pop("wall_s") > 0
        del side["policy"], side["config_version"]
    assert found["before"] == found["after"]


def test_prices_of_a_file_hold_on_both_sides(
    plan: Plan, changed: Path, busy: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("time_s,pool,usd_per_gpu_hour\n0,site-l40s,7\n")
    found = simulated(plan(changed, "--replay", busy, "--prices", prices, "--json"))
    for side in found.values():
        site = side["by_pool"]["site-l40s"]
        assert site["usd"] == pytest.approx(7 * site["gpu_hours"])
    prices.write_text("time_s,pool,usd_per_gpu_hour\n0,nowhere,7\n")
    refused = plan(changed, "--replay", busy, "--prices", prices)
    assert refused.exit_code == 2
    assert f"{prices}:2: pool 'nowhere' is not configured" in refused.stderr
    assert plan(changed, "--prices", prices).exit_code == 2


def test_a_workload_that_is_new_is_there_on_one_side_alone(
    plan: Plan, changed: Path, busy: Path
) -> None:
    text = busy.read_text().replace("records", "reports")
    busy.write_text(text)
    (changed / "more.yaml").write_text(
        "workloads:\n"
        "  - {name: reports, data_class: internal, models: [chat], allowed_zones: [site], "
        "slo: {ttft_p95_s: 9}}\n"
    )
    found = simulated(plan(changed, "--replay", busy, "--json"))
    assert "reports" not in found["before"]["by_workload"]
    arrived = {name: of["arrived"] for name, of in found["after"]["by_workload"].items()}
    assert arrived == {"assistant": 6000, "records": 0, "reports": 1500}
    shown = rows(plan(changed, "--replay", busy))
    assert any(line.startswith("reports") and "none →" in line for line in shown)


def test_where_a_speed_is_not_known_the_rest_is_told_without_the_table(
    plan: Plan, changed: Path, busy: Path
) -> None:
    rules = yaml.safe_load((changed / "all.yaml").read_text())
    del rules["models"][0]["variants"][0]["performance"]
    (changed / "all.yaml").write_text(yaml.safe_dump(rules))
    result = plan(changed, "--replay", busy)
    assert result.exit_code == 0, result.output
    assert "not simulated: variant 'chat-8b-fp8' has no `performance` on L40S" in result.stdout
    assert "in SLO" not in result.stdout
    assert "add one" in simulated(plan(changed, "--replay", busy, "--json"))["left_out"]
