"""`simulate`: what it prints and writes, and what it says of wrong use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.cli.arrivals import Trace, arrivals, read_mix
from orchestrator.config.spec import Configuration
from orchestrator.simulate.baselines import BASELINES
from tests.configurations import CLUSTERS
from tests.worlds import timed

SIMULATED = CLUSTERS / "simulated"
HEADER = "arrival_s,prompt_tokens,output_tokens"
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str, config: Path = SIMULATED) -> Result:
        return CliRunner().invoke(app, ["simulate", "--config", str(config), *words])

    return run


@pytest.fixture
def trace(tmp_path: Path) -> str:
    rows = [f"{number / 20},800,100" for number in range(600)]
    return write(tmp_path / "t.csv", HEADER, *rows)


def write(file: Path, *lines: str) -> str:
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def untimed(text: str) -> Any:
    """A report without what the machine has to do with."""
    report = json.loads(text)
    for of in report.get("policies", [report]):
        assert of.pop("wall_s") > 0
    return report


def test_one_policy_prints_and_writes_its_report(run: Run, trace: str, tmp_path: Path) -> None:
    result = run("--trace", trace, "--json", "--out", str(tmp_path / "out"), "--seed", "3")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {
        *("requests", "slo_attainment", "cost_usd", "cloud_fraction", "bursts"),
        *("reversals_per_hour", "residency_violations", "wall_s"),
    } <= set(report)
    assert set(report["cost_usd"]) == {"total", "onprem", "cloud"}
    assert (report["requests"], report["policy"], report["seed"]) == (600, "planner", 3)
    assert report["start"] == "2026-01-05T00:00:00+00:00"
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"planner: {trace}, configuration {report['config_version']}, seed 3" in page


def test_people_see_tables_whole_in_a_narrow_terminal(run: Run, trace: str, tmp_path: Path) -> None:
    result = run("--trace", trace)
    assert result.exit_code == 0, result.output
    assert "planner" in result.stdout
    assert "assistant" in result.stdout
    assert "tions" in result.stdout
    (written,) = (tmp_path / "state" / "simulations").iterdir()
    assert sorted(f.name for f in written.iterdir()) == ["report.html", "report.json"]


def test_all_policies_are_compared(run: Run, trace: str) -> None:
    result = run("--trace", trace, "--policy", "all", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [of["policy"] for of in report["policies"]] == ["planner", *BASELINES]
    assert {of["requests"] for of in report["policies"]} == {600}
    shown = run("--trace", trace, "--policy", "skyserve", "--policy", "hpa-utilization").stdout
    assert shown.index("skyserve") < shown.index("hpa-utilization")


def test_the_same_seed_gives_the_same_report(run: Run, tmp_path: Path) -> None:
    mix = ("--mix", "assistant=3,records=1", "--policy", "planner", "--policy", "static")
    told = []
    for seed, name in (("1", "a"), ("1", "b"), ("2", "c")):
        assert run(*mix, "--seed", seed, "--out", str(tmp_path / name)).exit_code == 0
        told.append(untimed((tmp_path / name / "report.json").read_text()))
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_prices_and_supply_are_taken_from_files(run: Run, trace: str, tmp_path: Path) -> None:
    prices = write(tmp_path / "p.csv", "time_s,pool,usd_per_gpu_hour", "0,cloud-l40s,2.5")
    none = write(tmp_path / "s.csv", "time_s,pool,replicas", "0,cloud-l40s,0")
    usual = untimed(run("--trace", trace, "--policy", "failover", "--json").stdout)
    dearer = untimed(
        run("--trace", trace, "--policy", "failover", "--prices", prices, "--json").stdout
    )
    empty = untimed(
        run("--trace", trace, "--policy", "failover", "--supply", none, "--json").stdout
    )
    assert dearer["cost_usd"]["cloud"] > usual["cost_usd"]["cloud"] > 0
    assert empty["cost_usd"]["cloud"] == 0


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (["a,b", "1,2"], "t.csv:1: no column"),
        ([HEADER, "0,1,1", "x,1,1"], "t.csv:3: write arrival_s as a number"),
        ([HEADER, "1700000000,1,1"], "write seconds since the beginning"),
        (
            [HEADER + ",workload", "0,1,1,records", "1,1,1,nobody"],
            "t.csv:3: no workload 'nobody'; name one of assistant, records",
        ),
    ],
)
def test_a_wrong_trace_is_told_by_its_line(
    run: Run, tmp_path: Path, lines: list[str], where: str
) -> None:
    result = run("--trace", write(tmp_path / "t.csv", *lines))
    assert result.exit_code == 2
    assert where in result.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "magic"], "--policy: there is no 'magic'; one of planner, static,"),
        (["--mix", "nobody=1"], "--mix: no workload 'nobody'; there are: assistant, records"),
        (["--mix", "assistant"], "--mix: write 'assistant' as NAME=SHARE"),
        (["--mix", "assistant=1,assistant=2"], "--mix: 'assistant' stands there twice"),
        (["--mix", "assistant=0"], "--mix: shares must be"),
        (["--mix", "assistant=nan"], "--mix: shares must be"),
        (["--start", "soon"], "--start: 'soon' is no day or time"),
        (["--trace", "none.csv"], "none.csv:1: cannot be read"),
        (["--prices", "none.csv"], "none.csv: cannot be read"),
        (["--tick-s", "0"], "--tick-s"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_use_is_told_with_the_mend(run: Run, words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_wrong_price_is_told_by_its_line(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "p.csv", "time_s,pool,usd_per_gpu_hour", "0,moon,1")
    result = run("--prices", file)
    assert result.exit_code == 2
    assert "p.csv:2: pool 'moon' is not configured; one of site-l40s, cloud-l40s" in result.stderr


def test_a_configuration_that_is_wrong_is_told_by_its_line(run: Run, tmp_path: Path) -> None:
    directory = shutil.copytree(SIMULATED, tmp_path / "c")
    text = (directory / "all.yaml").read_text()
    (directory / "all.yaml").write_text(text.replace("budget:", "bugdet:"))
    result = run(config=directory)
    assert result.exit_code == 2
    line = text[: text.index("budget:")].count("\n") + 1
    assert f"all.yaml:{line}: workloads[0].bugdet: unknown field" in result.stderr


def test_a_variant_of_unknown_speed_is_told(run: Run) -> None:
    result = run(config=CLUSTERS / "local")
    assert result.exit_code == 2
    assert "variant 'tiny-bf16' has no `performance` on CPU" in result.stderr


def test_a_price_over_the_network_is_to_be_given(run: Run) -> None:
    result = run(config=CLUSTERS / "example")
    assert result.exit_code == 2
    assert "over the network: give its prices with --prices" in result.stderr


def test_a_directory_that_cannot_be_written_is_told(run: Run, trace: str) -> None:
    result = run("--trace", trace, "--out", f"{trace}/out")
    assert result.exit_code == 2
    assert "give another --out" in result.stderr


def test_a_request_sent_where_its_data_may_not_be_is_a_no(
    run: Run, trace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.simulate import report

    honest = report.report_of

    def counted(*given: Any) -> dict[str, Any]:
        return honest(*given) | {"residency_violations": 1}

    monkeypatch.setattr(report, "report_of", counted)
    assert run("--trace", trace).exit_code == 1


def test_a_trace_may_name_its_workloads(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", HEADER + ",workload", "0,5,0,b", "1,0,7,a", "1,3,3,b")
    (block,) = arrivals(Path(file), ["a", "b"], {"a": 1}, 0)
    assert block.group.tolist() == [1, 0, 1]
    assert block.arrival_s.tolist() == [0, 1, 1]
    assert block.prompt_tokens.tolist() == [5, 1, 3]
    assert block.output_tokens.tolist() == [1, 7, 3]


def test_without_names_requests_are_shared_out_by_seed(tmp_path: Path) -> None:
    file = Path(write(tmp_path / "t.csv", HEADER, *(f"{n},1,1" for n in range(4000))))
    mix = {"a": 3.0, "c": 1.0}
    (block,) = arrivals(file, ["a", "b", "c"], mix, 5)
    (again,) = arrivals(file, ["a", "b", "c"], mix, 5)
    (other,) = arrivals(file, ["a", "b", "c"], mix, 6)
    counts = np.bincount(block.group, minlength=3)
    assert counts[1] == 0
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)
    assert block.group.tolist() == again.group.tolist() != other.group.tolist()


def test_a_trace_is_read_anew_by_each_who_goes_through_it(tmp_path: Path) -> None:
    file = Path(write(tmp_path / "t.csv", HEADER, *(f"{n},1,1" for n in range(70_000))))
    trace = Trace(file, ["a", "b"], {"a": 1.0, "b": 1.0}, 0)
    once, again = ([b.group.tolist() for b in trace] for _ in range(2))
    assert len(once) == 2
    assert once == again


def test_the_default_mix_is_those_who_ask_for_text() -> None:
    configuration = timed().configuration
    assert read_mix("", configuration) == {"assistant": 1, "records": 1}
    assert read_mix("records=2", configuration) == {"records": 2}
    raw = configuration.model_dump(mode="json")
    raw["models"][0]["variants"][0]["task"] = "embed"
    with pytest.raises(ValueError, match="--mix"):
        read_mix("", Configuration.model_validate(raw))


def test_the_bound_stands_below_the_policies_where_they_are_compared(
    run: Run, tmp_path: Path
) -> None:
    trace = write(tmp_path / "t.csv", HEADER, *(f"{number},400,50" for number in range(300)))
    words = ("--trace", trace, "--policy", "static", "--policy", "failover", "--bound")
    report = json.loads(run(*words, "--json", "--out", str(tmp_path / "out")).stdout)
    least = report["bound"]
    assert least["is_attainable"]
    assert {of["asked"] for of in least["by_workload"].values()} == {0.99}
    for of in report["policies"]:
        assert of["slo_attainment"] >= 0.99
        assert least["cost_usd"]["total"] <= of["cost_usd"]["total"]
    assert "<td>bound</td>" in (tmp_path / "out" / "report.html").read_text()
    assert "bound" in run(*words).stdout
    assert "bound" not in json.loads(run(*words[:-1], "--json").stdout)


def test_a_bound_that_nobody_reaches_says_what_it_is_for(run: Run, tmp_path: Path) -> None:
    rows = [f"{number},800,100" for number in range(10)] + ["10,60000,100"]
    trace = write(tmp_path / "t.csv", HEADER, *rows)
    shown = run("--trace", trace, "--mix", "assistant=1", "--bound").stdout
    assert "bound: no policy serves more in time than 90.91% of assistant" in shown
