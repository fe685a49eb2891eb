"""Records of all kinds are written in the background: each once and in order, whatever happens to
the disk, or counted as lost."""

import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.access_log import AccessEntry, AccessLog
from orchestrator.ledger.audit import AuditLog, DecisionRow
from orchestrator.ledger.audit_read import rows
from orchestrator.ledger.audit_verify import verify
from orchestrator.ledger.usage import UsageLedger
from orchestrator.ledger.writer import BackgroundWriter
from tests.unit.test_audit import ROW
from tests.unit.test_usage_ledger import RECORD

ENTRY = AccessEntry(1.5, "g", "r", None, "/v1/models", 200, None, 0.25)
CANARY = "canary-sings"
UNWRITABLE = "\ud800"
"""Half a character, of which there are no bytes."""


@dataclass(frozen=True)
class Case:
    kind: type[BackgroundWriter[Any]]
    make: Callable[..., BackgroundWriter[Any]]
    template: Any
    read: Callable[[Path], list[str]]
    """The ids of what was written, in order."""

    def record(self, request_id: str) -> Any:
        with_id = self.template._replace if isinstance(self.template, tuple) else self._replaced
        return with_id(request_id=request_id)

    def _replaced(self, **fields: Any) -> Any:
        return replace(self.template, **fields)


def stored(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT request_id FROM usage")]


def decided(trail: Path) -> list[str]:
    return [row.request_id for row in rows(trail) if isinstance(row, DecisionRow)]


def logged(path: Path) -> list[str]:
    return [orjson.loads(line)["request_id"] for line in path.read_bytes().splitlines()]


CASES = {
    "usage": Case(UsageLedger, UsageLedger, RECORD, stored),
    "audit": Case(AuditLog, lambda path, **how: AuditLog(path, "gw", **how), ROW, decided),
    "access": Case(AccessLog, AccessLog, ENTRY, logged),
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.ledger.writer.FLUSH_S", 0.001)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records"


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if words in message]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow past a few hundred bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_queued_at_the_end_is_written_in_order(case: Case, path: Path) -> None:
    ids = [f"r{number}" for number in range(2500)]
    with case.make(path) as writer:
        for request_id in ids:
            assert writer.append(case.record(request_id))
    assert case.read(path) == ids
    assert (writer.lost, writer.waiting) == (0, 0)


def test_a_full_disk_is_told_and_loses_nothing_that_there_is_room_for(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"r{number}" for number in range(1500)]
    with case.make(path) as writer:
        writer.append(case.record("before"))
        until(lambda: not writer.waiting)
        with full_disk():
            for request_id in ids:
                assert writer.append(case.record(request_id))
            until(lambda: said(caplog, "cannot be written"))
        until(lambda: said(caplog, "is written again"))
        assert len(said(caplog, "cannot be written")) == 1
        assert writer.append(case.record("after"))
    assert case.read(path) == ["before", *ids, "after"]
    assert writer.lost == 0


def test_what_a_full_disk_leaves_no_room_for_is_refused_and_counted(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with case.make(path, capacity=5) as writer:
        with full_disk():
            taken = [writer.append(case.record(f"r{number}")) for number in range(5000)]
            assert not all(taken)
            until(lambda: said(caplog, "cannot be written"))
        until(lambda: not writer.waiting)
    ids = [f"r{number}" for number, was_taken in enumerate(taken) if was_taken]
    assert case.read(path) == ids
    assert writer.lost == taken.count(False)
    assert said(caplog, f"{writer.lost} records are lost")


def test_what_the_disk_does_not_take_to_the_end_is_counted(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with case.make(path) as writer:
        writer.append(case.record("before"))
        until(lambda: not writer.waiting)
        with full_disk():
            for number in range(1500):
                writer.append(case.record(f"r{number}"))
            until(lambda: said(caplog, "cannot be written"))
            writer.__exit__(None, None, None)
        assert writer.lost == 1500 - len(case.read(path)[1:])
        assert said(caplog, f"has ended; {writer.lost} records are lost")


def test_a_chain_that_met_a_full_disk_is_whole(path: Path) -> None:
    with AuditLog(path, "gw", capacity=50) as log, full_disk():
        for _ in range(500):
            log.append(ROW)
    problems = verify(path)
    assert all(problem.is_warning and "lost" in problem.message for problem in problems)


def test_a_record_without_bytes_is_counted_once_and_takes_no_other_with_it(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with case.make(path) as writer:
        with full_disk():
            for request_id in ("a", UNWRITABLE, "b"):
                writer.append(case.record(request_id))
            until(lambda: said(caplog, "cannot be written"))
            time.sleep(0.02)  # several attempts
        until(lambda: not writer.waiting)
    assert case.read(path) == ["a", "b"]
    assert writer.lost == 1


def test_whatever_goes_wrong_is_told_without_its_text_and_tried_again(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError(CANARY)

    with case.make(path) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(case.kind, "_flush", broken)
            writer.append(case.record("a"))
            until(lambda: said(caplog, "cannot be written"))
        until(lambda: said(caplog, "is written again"))
    assert case.read(path) == ["a"]
    assert said(caplog, "RuntimeError in")
    assert CANARY not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_is_dead_says_so_and_takes_nothing(
    case: Case, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(case.kind, "_flush", dies)
    with case.make(path) as writer:
        writer.append(case.record("a"))
        until(lambda: said(caplog, "has ended"))
        lost = writer.lost
        assert not writer.append(case.record("b"))
        assert writer.lost == lost + 1


def test_a_writer_that_was_closed_takes_nothing(case: Case, path: Path) -> None:
    with case.make(path) as writer:
        pass
    assert not writer.append(case.record("late"))
    assert writer.lost == 1


def test_nobody_waits_for_a_writer_that_waits(
    case: Case, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    flush = case.kind._flush

    def waits(writer: BackgroundWriter[Any]) -> None:
        hangs.set()
        assert goes_on.wait(30)
        flush(writer)

    monkeypatch.setattr(case.kind, "_flush", waits)
    with case.make(path, capacity=100) as writer:
        assert hangs.wait(30)
        taken = [writer.append(case.record(f"r{number}")) for number in range(150)]
        goes_on.set()
    assert taken == [True] * 100 + [False] * 50
    assert case.read(path) == [f"r{number}" for number in range(100)]


class Fickle(BackgroundWriter[int]):
    """Fails after as many records of a flush as it is told; then it does not."""

    def __init__(self, capacity: int, fails_after: list[int]) -> None:
        super().__init__("fickle", capacity)
        self.fails_after = fails_after
        self.written: list[int] = []

    def _flush(self) -> None:
        takes = self.fails_after.pop(0) if self.fails_after else None
        for batch in self._batches():
            while batch:
                if takes == 0:
                    raise OSError(CANARY)
                takes = takes and takes - 1
                self.written.append(batch[0])
                batch.popleft()

    def _close(self, whole: bool) -> None:
        """There is nothing to close."""


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 30),
    st.lists(st.integers(0, 9), max_size=9),
    st.lists(st.booleans(), max_size=60),
)
def test_each_record_is_written_once_in_order_or_refused(
    capacity: int, fails_after: list[int], pauses: list[bool]
) -> None:
    with Fickle(capacity, fails_after) as writer:
        taken = []
        for number, pause in enumerate(pauses):
            if writer.append(number):
                taken.append(number)
            assert writer.waiting <= capacity
            if pause:
                time.sleep(0)
        until(lambda: not writer.fails_after)
    assert writer.written == taken
    assert writer.lost == len(pauses) - len(taken)
