"""`audit verify` and `audit show`: a broken trail answers nothing."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from tests.unit.test_audit import DAY_S, JANUARY_S, ROW, SNAPSHOT, write


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, ["audit", *words])


def ask(run: Callable[..., Result], *words: str) -> dict[str, Any]:
    january = ("--workload", "records", "--from", "2000-01-01", "--to", "2000-01-31")
    result = run("show", *january, "--json", *words)
    answer: dict[str, Any] = orjson.loads(result.stdout)
    assert result.exit_code == (0 if answer["verified"] and not answer["lost_rows"] else 1)
    return answer


def test_no_trail_is_wrong_use(run: Callable[..., Result]) -> None:
    assert run("verify").exit_code == 2


def test_a_whole_trail_is_verified(run: Callable[..., Result], trail: Path) -> None:
    write(trail, SNAPSHOT, ROW)
    result = run("verify", "--json")
    assert result.exit_code == 0
    answer = orjson.loads(result.stdout)
    assert answer["whole"] is True
    (chain,) = answer["chains"]
    assert (chain["rows"], chain["decisions"], chain["files"]) == (4, 1, 1)
    assert chain["first_s"] == chain["last_s"] == JANUARY_S
    assert "2000-01-01 00:00:00" in run("verify").stdout


def test_a_broken_trail_is_told_and_gives_no_answer(
    run: Callable[..., Result], trail: Path
) -> None:
    write(trail, ROW)
    path = trail / "gw" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"onprem"', b'"cloudy"'))
    result = run("verify", "--json")
    assert result.exit_code == 1
    (problem,) = orjson.loads(result.stdout)["problems"]
    assert (problem["path"], problem["line"]) == (str(path), 2)
    shown = run("show", "--workload", "records", "--from", "2000-01-01", "--to", "2000-01-31")
    assert shown.exit_code == 1
    assert "onprem" not in shown.output
    assert "cloudy" not in shown.output


def test_it_shows_that_no_restricted_request_left_the_site(
    run: Callable[..., Result], trail: Path
) -> None:
    write(
        trail,
        *(replace(ROW, request_id=f"r-{n}", time_s=JANUARY_S + n * DAY_S) for n in range(31)),
        replace(ROW, request_id="r-0", attempt=2),
        replace(ROW, chosen=None, zone=None, denied="no_capacity", request_id="d"),
        replace(ROW, data_class="internal", zone="cloud"),
        replace(ROW, workload="assistant", zone="cloud"),
        replace(ROW, time_s=JANUARY_S - 1, zone="cloud"),
        replace(ROW, time_s=JANUARY_S + 31 * DAY_S, zone="cloud"),
    )
    answer = ask(run)["by_data_class"]
    assert answer["restricted"] == {
        "requests": 32,
        "sent": {"onprem": 32},
        "denied": {"no_capacity": 1},
    }
    assert answer["internal"]["sent"] == {"cloud": 1}
    shown = run("show", "--workload", "records", "--from", "2000-01-01", "--to", "2000-01-31")
    assert "restricted: 32 requests; all in zone onprem; 1 denied (no_capacity)" in shown.stdout
    assert "verified" in shown.stdout


def test_one_that_did_leave_is_not_hidden_among_many(
    run: Callable[..., Result], trail: Path
) -> None:
    stayed = [replace(ROW, request_id=f"r-{n}") for n in range(1000)]
    write(trail, *stayed, replace(ROW, zone="cloud"))
    answer = ask(run, "--data-class", "restricted")
    assert answer["by_data_class"]["restricted"]["sent"] == {"onprem": 1000, "cloud": 1}
    shown = run("show", "--workload", "records", "--from", "2000-01-01", "--to", "2000-01-31")
    assert "1 in zone cloud" in shown.stdout


def test_rows_come_by_time_over_all_gateways(run: Callable[..., Result], trail: Path) -> None:
    write(trail, replace(ROW, time_s=JANUARY_S + 5, request_id="late"), gateway_id="a")
    write(trail, replace(ROW, request_id="early"), gateway_id="b")
    answer = ask(run, "--rows")
    assert [row["request_id"] for row in answer["rows"]] == ["early", "late"]
    shown = run(
        *("show", "--workload", "records", "--rows"),
        *("--from", "2000-01-01", "--to", "2000-01-02"),
    )
    assert shown.stdout.index("early/1") < shown.stdout.index("late/1")


def test_a_workload_without_decisions_is_not_taken_for_proof(
    run: Callable[..., Result], trail: Path
) -> None:
    write(trail, ROW)
    shown = run("show", "--workload", "recrods", "--from", "2000-01-01", "--to", "2000-01-31")
    assert "some for: records" in shown.stdout


def test_an_answer_with_lost_rows_proves_nothing(run: Callable[..., Result], trail: Path) -> None:
    now_s = time.time()
    lost = replace(ROW, time_s=now_s, facts={"model": "\ud800"})
    write(trail, replace(ROW, time_s=now_s), lost)
    day = time.strftime("%Y-%m-%d", time.gmtime(now_s))
    period = ("--from", day, "--to", time.strftime("%Y-%m-%d", time.gmtime(now_s + DAY_S)))
    result = run("show", "--workload", "records", *period, "--json")
    assert orjson.loads(result.stdout)["lost_rows"] == 1
    assert result.exit_code == 1
    assert run("verify").exit_code == 0
    assert ask(run)["lost_rows"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "January", "--to", "2000-01-31"),
        ("--from", "2000-02-01", "--to", "2000-01-31"),
        ("--from", "2000-01-01", "--to", "9999-12-31"),
        ("--from", "2000-01-01", "--to", "2000-01-31", "--data-class", "secret"),
    ],
)
def test_wrong_use_is_told_from_a_broken_trail(
    run: Callable[..., Result], trail: Path, words: tuple[str, ...]
) -> None:
    write(trail, ROW)
    assert run("show", "--workload", "records", *words).exit_code == 2


def test_a_time_ends_a_period_before_it_and_a_day_with_it(
    run: Callable[..., Result], trail: Path
) -> None:
    write(trail, replace(ROW, time_s=JANUARY_S + DAY_S / 2))
    counts = {}
    for end in ("2000-01-01", "2000-01-01T12:00", "2000-01-01T12:00:01", "2000-01-01T13:00+01"):
        period = ("--from", "2000-01-01", "--to", end)
        result = run("show", "--workload", "records", *period, "--json")
        counts[end] = len(orjson.loads(result.stdout)["by_data_class"])
    assert list(counts.values()) == [1, 0, 1, 0]
