"""Whatever is done to an audit trail after it was written, `verify` sees it; what is not, it
leaves alone."""

import errno
import gzip
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.ledger.audit import AuditLog, DecisionRow, GapRow, SnapshotRow
from orchestrator.ledger.audit_anchors import FILE, anchor
from orchestrator.ledger.audit_read import rows
from orchestrator.ledger.audit_verify import inspect, verify

CASES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXT = st.text(max_size=20)


@st.composite
def decisions(draw: st.DrawFn) -> DecisionRow:
    denied = draw(st.none() | TEXT)
    return DecisionRow(
        time_s=draw(st.floats(0, 4e9)),
        request_id=draw(TEXT),
        attempt=draw(st.integers(1, 5)),
        workload=draw(TEXT),
        key_id=draw(TEXT),
        data_class=draw(st.sampled_from(["public", "restricted"])),
        facts=draw(st.dictionaries(TEXT, st.integers(0, 9) | TEXT, max_size=3)),
        candidates="ab",
        chosen=None if denied else "home/v",
        zone=None if denied else "onprem",
        denied=denied,
        policy_version="1",
        snapshot_version=draw(st.integers(0, 9)),
        quote=draw(st.none() | st.just({"usd_per_gpu_hour": 1.5})),
    )


SNAPSHOTS = st.builds(SnapshotRow, st.integers(0, 9), TEXT, TEXT)
ROWS = st.lists(decisions() | SNAPSHOTS, max_size=30)


def decision(number: int) -> DecisionRow:
    return DecisionRow(
        time_s=float(number),
        request_id=f"r-{number}",
        attempt=1,
        workload="records",
        key_id="k",
        data_class="restricted",
        facts={"total_tokens": number},
        candidates="ab",
        chosen="home/v",
        zone="onprem",
        denied=None,
        policy_version="1",
        snapshot_version=1,
        quote=None,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chains of several files, ended in good order."""
    trail = tmp_path_factory.mktemp("written") / "audit"
    for gateway_id in ("aaaa", "bbbb"):
        with AuditLog(trail, gateway_id, rotate_bytes=2500) as log:
            for number in range(12):
                log.append(decision(number))
    assert verify(trail) == []
    assert len(list((trail / "aaaa").iterdir())) > 2
    return trail


@pytest.fixture
def trail(written: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a fresh copy at each call."""

    def copy() -> Path:
        shutil.rmtree(tmp_path / "audit", ignore_errors=True)
        return shutil.copytree(written, tmp_path / "audit")

    return copy


def every_file(trail: Path) -> list[Path]:
    return sorted(path for path in trail.rglob("*") if path.is_file())


def chain_files(trail: Path) -> list[Path]:
    return [path for path in every_file(trail) if path.name != FILE]


def content(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def put(path: Path, changed: bytes) -> None:
    """As somebody would who knows the format: compressed again where it was."""
    path.write_bytes(gzip.compress(changed) if path.suffix == ".gz" else changed)


def is_broken(trail: Path) -> bool:
    return not inspect(trail).is_whole


@CASES
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(1, 4000))
def test_an_untouched_trail_is_whole_and_gives_back_every_row(
    tmp_path_factory: pytest.TempPathFactory, chains: list[list[DecisionRow]], rotate_bytes: int
) -> None:
    trail = tmp_path_factory.mktemp("untouched") / "audit"
    for number, appended in enumerate(chains):
        with AuditLog(trail, f"g{number}", rotate_bytes) as log:
            for row in appended:
                assert log.append(row)
            anchor(trail, [log.head()])
    assert verify(trail) == []
    for number, appended in enumerate(chains):
        assert list(rows(trail, f"g{number}")) == appended
    for chain in inspect(trail).chains:
        assert chain.ended
        assert chain.anchored_seq == chain.rows


@CASES
@given(st.data())
def test_a_changed_byte_is_seen_in_any_file(trail: Callable[[], Path], data: st.DataObject) -> None:
    copy = trail()
    path = data.draw(st.sampled_from(every_file(copy)))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    assert verify(copy)
    assert path.name == FILE or is_broken(copy)


@CASES
@given(st.data())
def test_a_changed_byte_is_seen_in_a_file_that_was_compressed_again(
    trail: Callable[[], Path], data: st.DataObject
) -> None:
    copy = trail()
    path = data.draw(st.sampled_from(chain_files(copy)))
    changed = bytearray(content(path))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    put(path, bytes(changed))
    assert is_broken(copy)


@CASES
@given(st.data())
def test_a_missing_line_is_seen(trail: Callable[[], Path], data: st.DataObject) -> None:
    copy = trail()
    path = data.draw(st.sampled_from(every_file(copy)))
    lines = content(path).splitlines(keepends=True)
    del lines[data.draw(st.integers(0, len(lines) - 1))]
    put(path, b"".join(lines))
    assert verify(copy)
    assert path.name == FILE or is_broken(copy)


@CASES
@given(st.data())
def test_lines_that_changed_places_are_seen(trail: Callable[[], Path], data: st.DataObject) -> None:
    copy = trail()
    path = data.draw(st.sampled_from([p for p in every_file(copy) if content(p).count(b"\n") > 1]))
    lines = content(path).splitlines(keepends=True)
    a, b = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    lines[a], lines[b] = lines[b], lines[a]
    put(path, b"".join(lines))
    assert is_broken(copy)


def test_a_missing_file_is_seen_whichever_it_is(trail: Callable[[], Path]) -> None:
    for number in range(len(every_file(trail()))):
        copy = trail()
        every_file(copy)[number].unlink()
        assert is_broken(copy)


def test_a_missing_chain_is_seen(trail: Callable[[], Path]) -> None:
    copy = trail()
    shutil.rmtree(copy / "aaaa")
    assert is_broken(copy)


def test_a_chain_in_the_place_of_another_is_seen(trail: Callable[[], Path]) -> None:
    copy = trail()
    shutil.rmtree(copy / "aaaa")
    shutil.copytree(copy / "bbbb", copy / "aaaa")
    assert is_broken(copy)


@CASES
@given(st.data())
def test_a_tail_that_was_cut_off_before_an_anchor_is_seen(
    trail: Callable[[], Path], data: st.DataObject
) -> None:
    copy = trail()
    path = chain_files(copy)[-1]
    os.truncate(path, data.draw(st.integers(0, path.stat().st_size - 1)))
    assert is_broken(copy)


@CASES
@given(ROWS, st.integers(0, 29))
def test_a_chain_that_was_written_anew_contradicts_its_anchors(
    tmp_path_factory: pytest.TempPathFactory, appended: list[DecisionRow], change: int
) -> None:
    """By somebody who can compute every hash and append anchors, but not take any away."""
    trail = tmp_path_factory.mktemp("rewritten") / "audit"
    with AuditLog(trail, "aaaa") as log:
        for row in [decision(0), *appended]:
            log.append(row)
    forged = trail.parent / "forged"
    with AuditLog(forged, "aaaa") as log:
        for row in [decision(1), *appended]:
            log.append(row)
        anchored = log
    shutil.rmtree(trail / "aaaa")
    shutil.copytree(forged / "aaaa", trail / "aaaa")
    anchor(trail, [anchored.head()])
    assert is_broken(trail)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


class Disk:
    """Takes as many bytes of each write as it is told, then refuses: None is a full disk."""

    def __init__(self) -> None:
        self.takes: list[int | None] = []
        self.is_full = False
        self._write = os.write

    def write(self, fd: int, data: bytes) -> int:
        if threading.current_thread().name != "audit-log":
            return self._write(fd, data)
        take = self.takes.pop(0) if self.takes else len(data)
        if self.is_full or take is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, bytes(data[: max(1, take)]))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "write", made.write)
    monkeypatch.setattr("orchestrator.ledger.writer.FLUSH_S", 0.001)
    return made


@CASES
@given(ROWS, st.integers(1, 3000), st.lists(st.none() | st.integers(1, 500), max_size=20))
def test_a_disk_that_takes_little_or_nothing_loses_no_row_under_the_capacity(
    disk: Disk,
    tmp_path_factory: pytest.TempPathFactory,
    appended: list[DecisionRow],
    rotate_bytes: int,
    takes: list[int | None],
) -> None:
    trail = tmp_path_factory.mktemp("full") / "audit"
    with AuditLog(trail, "aaaa", rotate_bytes) as log:
        disk.takes = list(takes)
        for row in appended:
            assert log.append(row)
        until(lambda: not disk.takes or not (log.waiting or log._files.unwritten))
        disk.takes = []
    assert log.lost == 0
    assert verify(trail) == []
    assert list(rows(trail, "aaaa")) == appended


@settings(CASES, max_examples=20)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 2000))
def test_what_is_lost_past_the_capacity_is_told_in_a_chain_that_verifies(
    disk: Disk,
    tmp_path_factory: pytest.TempPathFactory,
    capacity: int,
    more: int,
    rotate_bytes: int,
) -> None:
    trail = tmp_path_factory.mktemp("over") / "audit"
    with AuditLog(trail, "aaaa", rotate_bytes, capacity) as log:
        disk.is_full = True
        taken = [log.append(decision(n)) for n in range(2 * capacity + more)]
        disk.is_full = False
    kept = [row for row in rows(trail) if isinstance(row, DecisionRow)]
    told = sum(row.lost for row in rows(trail) if isinstance(row, GapRow))
    assert len(kept) == sum(taken)
    assert told == log.lost == len(taken) - sum(taken) > 0
    problems = verify(trail)
    assert problems
    assert all(p.is_warning and "lost" in p.message for p in problems)
