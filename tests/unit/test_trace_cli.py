"""`trace`: import, stats and synth, by the command line."""

import gzip
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.ledger.usage import UsageLedger
from tests.unit.test_usage_ledger import RECORD

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
HEADER = "arrival_s,prompt_tokens,output_tokens"
ATTEMPT = RECORD._replace(
    request_id="r1",
    started_at_s=1000.0,
    workload="assistant",
    prompt_tokens=10,
    completion_tokens=5,
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["trace", *map(str, words)])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_public_trace_is_imported(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "azure.csv", tmp_path / f"ours{suffix}"
    source.write_text(AZURE + "2024-05-10 00:00:00,1,2\n2024-05-10 00:00:01.5,3,4\n")
    assert run("import", "azure", source, "--out", target).exit_code == 0
    data = target.read_bytes()
    text = (gzip.decompress(data) if suffix.endswith("gz") else data).decode()
    assert text == f"{HEADER}\n0.000000,1,2\n1.500000,3,4\n"
    assert list(tmp_path.glob("*.partial")) == []


def test_prefix_blocks_are_imported(tmp_path: Path) -> None:
    source = tmp_path / "mooncake.jsonl"
    source.write_text(
        '{"timestamp": 0, "input_length": 9, "output_length": 2, "hash_ids": [1, 2]}\n'
    )
    result = run("import", "mooncake", source)
    assert result.stdout == f"{HEADER},hash_ids\n0.000000,9,2,1 2\n"


@pytest.mark.parametrize("format_name", ["azure", "burstgpt", "mooncake"])
def test_a_fault_leaves_what_was_there(tmp_path: Path, format_name: str) -> None:
    source, target = tmp_path / "source", tmp_path / "ours.csv"
    source.write_text("nonsense\n")
    target.write_text("before")
    result = run("import", format_name, source, "--out", target)
    assert result.exit_code == 2
    assert f"{source}:1: " in result.stderr
    assert target.read_text() == "before"
    assert sorted(tmp_path.iterdir()) == [target, source]


def test_requests_of_the_ledger_are_imported_without_content(tmp_path: Path) -> None:
    attempts = (
        ATTEMPT._replace(request_id="r2", started_at_s=1002.5, workload="a,b"),
        ATTEMPT._replace(outcome="cut", completion_tokens=3),
        ATTEMPT._replace(attempt=2, started_at_s=1001.0, prompt_tokens=13),
        ATTEMPT._replace(attempt=3, outcome="cancelled", completion_tokens=50),
        ATTEMPT._replace(
            request_id="r3", usage_source="none", prompt_tokens=0, completion_tokens=0
        ),
    )
    with UsageLedger(tmp_path / "ledger.sqlite") as ledger:
        for attempt in attempts:
            ledger.append(attempt)
    for source in (tmp_path, tmp_path / "ledger.sqlite"):
        result = run("import", "usage", source)
        assert result.exit_code == 0
        assert result.stdout == (
            f'{HEADER},workload\n0.000000,10,8,assistant\n2.500000,10,5,"a,b"\n'
        )
        assert "left out: 1 requests" in result.stderr


def test_what_is_no_ledger_is_wrong_use(tmp_path: Path) -> None:
    assert run("import", "usage", tmp_path).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_stats_of_a_known_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        f"{HEADER},workload,hash_ids\n"
        "0,10,1,a,1 2\n0.5,20,2,a,1 2 3\n0.9,30,3,b,1\n59,40,4,a,\n61,50,0,b,4 5\n"
    )
    result = run("stats", path, "--json")
    assert result.exit_code == 0
    found = orjson.loads(result.stdout)
    assert found["requests"] == 5
    assert found["duration_s"] == 61
    assert found["mean_rate_rps"] == pytest.approx(4 / 61)
    assert (found["busiest_second_requests"], found["busiest_minute_requests"]) == (3, 4)
    assert found["inter_arrival_cv"] == pytest.approx(1.6228, abs=1e-3)
    assert found["prompt_tokens"] == {"mean": 30, "p50": 30, "p90": 50, "p99": 50, "max": 50}
    assert found["output_tokens"] == {"mean": 2, "p50": 2, "p90": 4, "p99": 4, "max": 4}
    assert {n: w["requests"] for n, w in found["workloads"].items()} == {"a": 3, "b": 2}
    assert found["prefix_blocks"] == 8
    assert found["prefix_blocks_seen_before_share"] == pytest.approx(3 / 8)
    assert "seen before" in run("stats", path).stdout


def test_stats_of_one_request(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{HEADER}\n3,10,1\n")
    found = orjson.loads(run("stats", path, "--json").stdout)
    assert (found["requests"], found["mean_rate_rps"], found["workloads"]) == (1, None, {})
    assert run("stats", path).exit_code == 0


def test_stats_name_the_line_of_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{HEADER}\n1,1,1\n0,1,1\n")
    result = run("stats", path)
    assert result.exit_code == 2
    assert f"{path}:3: " in result.stderr


def test_a_trace_is_made_of_plain_figures(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    words = ("--rate-rps", "3", "--cv", "2", "--workloads", "a=3,b=1", "--duration", "1h")
    assert run("synth", *words, "--out", path).exit_code == 0
    found = orjson.loads(run("stats", path, "--json").stdout)
    assert found["mean_rate_rps"] == pytest.approx(3, rel=0.15)
    assert found["inter_arrival_cv"] == pytest.approx(2, rel=0.15)
    assert found["workloads"]["a"]["requests"] / found["requests"] == pytest.approx(0.75, abs=0.03)
    assert found["output_tokens"]["p90"] == pytest.approx(423, rel=0.1)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--clients", "rates.csv"),
        ("--rate-rps", "1", "--workloads", "a"),
        ("--rate-rps", "1", "--workloads", "a=-1"),
        ("--rate-rps", "1", "--to", "1h", "--duration", "1h"),
        ("--rate-rps", "1", "--from", "2h", "--to", "1h"),
        ("--rate-rps", "1", "--prompt-p90", "2"),
        ("--clients", "absent.csv", "--tokens", "absent.csv"),
    ],
)
def test_wrong_use_is_refused(words: tuple[str, ...]) -> None:
    result = run("synth", *words)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout
