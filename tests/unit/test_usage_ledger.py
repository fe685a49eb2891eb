"""Usage records are written later rather than lost, and what is lost is counted."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger import usage
from orchestrator.ledger.usage import UsageLedger, UsageRecord

RECORD = UsageRecord(
    request_id="r",
    attempt=1,
    started_at_s=1,
    workload="w",
    key_id="k",
    data_class="public",
    model="m",
    variant="v",
    pool="p",
    zone="z",
    policy_version="1",
    snapshot_version=1,
    usd_per_gpu_hour=None,
    outcome="complete",
    prompt_tokens=1,
    cached_tokens=0,
    completion_tokens=2,
    usage_source="engine",
    ttft_s=None,
    duration_s=1,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.ledger.writer.FLUSH_S", 0.01)
    monkeypatch.setattr(usage, "BUSY_S", 0.05)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def written(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            return []
        return [row[0] for row in connection.execute("SELECT request_id FROM usage")]


def append(ledger: UsageLedger, *request_ids: str) -> None:
    for request_id in request_ids:
        ledger.append(RECORD._replace(request_id=request_id))


def test_a_record_that_cannot_be_stored_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with UsageLedger(path) as ledger:
        append(ledger, "a")
        ledger.append(RECORD._replace(request_id="huge", prompt_tokens=2**63))
        append(ledger, "b")
        until(lambda: ledger.lost == 1)
        append(ledger, "c")
    assert written(path) == ["a", "b", "c"]
    assert ledger.lost == 1


def test_records_wait_for_a_database_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with UsageLedger(path) as ledger:
        append(ledger, "a")
        until(lambda: path.exists() and written(path) == ["a"])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        append(ledger, "b", "c")
        time.sleep(0.3)  # several attempts
        other.execute("ROLLBACK")
        until(lambda: written(path) == ["a", "b", "c"])
        other.close()
    assert ledger.lost == 0


def test_a_path_that_cannot_be_opened_at_first_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.mkdir()
    with UsageLedger(path) as ledger:
        append(ledger, "a")
        time.sleep(0.1)
        path.rmdir()
        until(lambda: path.exists() and bool(written(path)))
    assert written(path) == ["a"]


def test_what_is_over_the_capacity_is_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.mkdir()
    with UsageLedger(path, capacity=2) as ledger:
        append(ledger, "a", "b", "c", "d")
        assert ledger.lost == 2
    assert ledger.lost == 4, "nor could the others be written to the end"
