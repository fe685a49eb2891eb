"""The audit trail: what is written, what a crash leaves behind, what is found again."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from orchestrator.ledger.audit import AuditLog, DecisionRow, GapRow, SnapshotRow
from orchestrator.ledger.audit_anchors import FILE, Head, anchor, heads_of
from orchestrator.ledger.audit_chain import seal
from orchestrator.ledger.audit_read import AuditError, find, rows
from orchestrator.ledger.audit_verify import inspect, verify

DAY_S = 86_400.0
JANUARY_S = 946_684_800.0
"""2000-01-01T00:00Z."""

ROW = DecisionRow(
    time_s=JANUARY_S,
    request_id="r-1",
    attempt=1,
    workload="records",
    key_id="k1",
    data_class="restricted",
    facts={"model": "tiny", "excluded": {}},
    candidates="ab12",
    chosen="home/v",
    zone="onprem",
    denied=None,
    policy_version="p1",
    snapshot_version=7,
    quote={"usd_per_gpu_hour": 1.5},
)
SNAPSHOT = SnapshotRow(7, "p1", '{"version": 7}')


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.ledger.writer.FLUSH_S", 0.001)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def write(trail: Path, *written: DecisionRow | SnapshotRow, gateway_id: str = "gw") -> AuditLog:
    with AuditLog(trail, gateway_id) as log:
        for row in written:
            log.append(row)
    return log


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_a_line_is_json_and_names_its_place(trail: Path) -> None:
    write(trail, ROW)
    lines = [orjson.loads(line) for line in (trail / "gw" / "000001.jsonl").open("rb")]
    assert [line["kind"] for line in lines] == ["file", "decision", "end"]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert [line["prev"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    assert lines[1]["request_id"] == "r-1"


def test_the_hash_of_a_line_can_be_had_without_this_program(trail: Path) -> None:
    write(trail, ROW)
    line = (trail / "gw" / "000001.jsonl").read_bytes().splitlines(keepends=True)[1]
    summed = subprocess.run(["b2sum", "-l", "256"], input=line[75:], capture_output=True)
    assert summed.stdout.split()[0].decode() == orjson.loads(line)["hash"]


def test_a_closed_file_is_compressed(trail: Path) -> None:
    with AuditLog(trail, "gw", rotate_bytes=1) as log:
        log.append(ROW)
        log.append(ROW)
    names = sorted(path.name for path in (trail / "gw").iterdir())
    assert names == ["000001.jsonl.gz", "000002.jsonl.gz", "000003.jsonl"]


def test_a_gateway_id_is_used_once(trail: Path) -> None:
    write(trail, ROW)
    with pytest.raises(FileExistsError):
        AuditLog(trail, "gw").__enter__()


def test_the_head_is_what_is_on_disk(trail: Path) -> None:
    with AuditLog(trail, "gw") as log:
        assert log.head() == Head("gw", 0, "0" * 64)
        log.append(ROW)
        until(lambda: log.head().seq == 2)
        last = (trail / "gw" / "000001.jsonl").read_bytes().splitlines()[-1]
        assert orjson.loads(last)["hash"] == log.head().hash
    assert log.head().seq == 3


def test_a_row_that_is_no_json_is_counted_and_the_others_are_written(trail: Path) -> None:
    log = write(trail, replace(ROW, facts={"model": "\ud800"}), replace(ROW, request_id="r-2"))
    assert log.lost == 1
    assert [r.request_id for r in rows(trail) if isinstance(r, DecisionRow)] == ["r-2"]


def test_a_row_that_was_replaced_and_sealed_anew_does_not_fit_the_next(trail: Path) -> None:
    write(trail, ROW, replace(ROW, request_id="r-2"))
    path = trail / "gw" / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    prev = orjson.loads(lines[0])["hash"].encode()
    lines[1], _ = seal(2, prev, "decision", orjson.dumps(replace(ROW, zone="elsewhere")))
    path.write_bytes(b"".join(lines))
    (problem,) = verify(trail)
    assert not problem.is_warning
    assert (problem.line, "row 2 was replaced" in problem.message) == (3, True)


def test_each_loss_is_told_once(trail: Path) -> None:
    with AuditLog(trail, "gw") as log:
        for lost in (1, 2):
            log.append(replace(ROW, facts={"model": "\ud800"}))
            until(lambda lost=lost: log.head().seq == 1 + lost)
    assert [row.lost for row in rows(trail) if isinstance(row, GapRow)] == [1, 1]


def test_files_are_for_their_owner_alone(trail: Path) -> None:
    with AuditLog(trail, "gw", rotate_bytes=1) as log:
        log.append(ROW)
        log.append(ROW)
    written = [path for path in trail.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == {".jsonl", ".gz"}
    for path in written:
        assert path.stat().st_mode & 0o077 == 0


class TestAnchors:
    def test_processes_append_to_one_chain(self, trail: Path) -> None:
        def note(name: str) -> None:
            for seq in range(1, 30):
                anchor(trail, [Head(name, seq, "ab" * 32)])

        threads = [threading.Thread(target=note, args=(f"g{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = [orjson.loads(line) for line in (trail / FILE).open("rb")]
        assert [line["seq"] for line in lines] == list(range(1, 4 * 29 + 1))
        assert [h.seq for h in heads_of(trail, "g3")] == list(range(1, 30))
        assert {p.path.name for p in verify(trail)} == {"g0", "g1", "g2", "g3"}  # are not there

    def test_heads_that_did_not_move_are_noted_once(self, trail: Path) -> None:
        heads = [Head("a", 1, "00" * 32), Head("b", 2, "00" * 32)]
        anchor(trail, heads)
        anchor(trail, heads)
        anchor(trail, [])
        assert (trail / FILE).read_bytes().count(b"\n") == 1

    def test_what_a_crash_left_half_written_is_replaced(self, trail: Path) -> None:
        write(trail, ROW)
        with (trail / FILE).open("ab") as file:
            file.write(b'{"hash":"00')
        (problem,) = verify(trail)
        assert problem.is_warning
        assert "torn tail" in problem.message
        write(trail, ROW, gateway_id="other")
        assert verify(trail) == []

    def test_a_last_line_that_was_tampered_with_stays_to_be_found(self, trail: Path) -> None:
        write(trail, ROW)
        with (trail / FILE).open("ab") as file:
            file.write(b"nothing\n")
        write(trail, ROW, gateway_id="other")
        assert not inspect(trail).is_whole

    def test_what_is_noted_while_a_chain_is_read_is_not_held_against_it(self, trail: Path) -> None:
        with AuditLog(trail, "gw", rotate_bytes=1) as log:

            def go_on(rows_before: int) -> None:
                log.append(ROW)
                until(lambda: log.head().seq == 2 * rows_before + 2)
                anchor(trail, [log.head()])

            go_on(0)
            go_on(1)
            read: list[Path] = []

            def on_read(path: Path) -> None:
                read.append(path)
                go_on(1 + len(read))

            assert inspect(trail, on_read).problems == []
            assert len(read) == 2

    def test_a_late_head_says_nothing_new(self, trail: Path) -> None:
        with AuditLog(trail, "gw") as log:
            log.append(ROW)
            until(lambda: log.head().seq == 2)
            early = log.head()
        anchor(trail, [early])
        assert verify(trail) == []

    def test_anchors_that_were_cut_off_are_missed_by_the_chain_that_ended(
        self, trail: Path
    ) -> None:
        write(trail, ROW)
        lines = (trail / FILE).read_bytes().splitlines(keepends=True)
        (trail / FILE).write_bytes(b"".join(lines[:-1]))
        (problem,) = verify(trail)
        assert "anchor" in problem.message


class TestCrash:
    def test_a_killed_writer_leaves_a_torn_tail_at_most(self, trail: Path) -> None:
        script = (
            "import sys; from tests.unit.test_audit import *\n"
            "log = AuditLog(Path(sys.argv[1]), 'gw', 100_000).__enter__()\n"
            "while True: log.append(ROW); time.sleep(0)\n"
        )
        writer = subprocess.Popen([sys.executable, "-c", script, str(trail)])
        until(lambda: (trail / "gw" / "000004.jsonl").exists())
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        assert all(p.is_warning and "torn tail" in p.message for p in verify(trail))
        assert {row.request_id for row in rows(trail) if isinstance(row, DecisionRow)} == {"r-1"}

    def test_a_half_written_line_is_a_warning_and_no_row(self, trail: Path, tmp_path: Path) -> None:
        killed = tmp_path / "killed"
        with AuditLog(trail, "gw") as log:
            log.append(ROW)
            log.append(replace(ROW, request_id="r-2"))
            until(lambda: log.head().seq == 3)
            shutil.copytree(trail, killed)
        path = killed / "gw" / "000001.jsonl"
        whole = path.read_bytes()
        for size in range(len(b"".join(whole.splitlines(keepends=True)[:2])) + 1, len(whole)):
            path.write_bytes(whole[:size])
            (problem,) = verify(killed)
            assert problem.is_warning
            assert "torn tail" in problem.message
            assert [r.request_id for r in rows(killed) if isinstance(r, DecisionRow)] == ["r-1"]

    def test_chains_without_an_end_cannot_change_places(self, trail: Path, tmp_path: Path) -> None:
        killed = tmp_path / "killed"
        with AuditLog(trail, "a") as a, AuditLog(trail, "b") as b:
            a.append(ROW)
            b.append(ROW)
            until(lambda: a.head().seq == b.head().seq == 2)
            shutil.copytree(trail, killed)
        assert verify(killed) == []
        (killed / "a").rename(killed / "c")
        (killed / "b").rename(killed / "a")
        (killed / "c").rename(killed / "b")
        assert len([p for p in verify(killed) if not p.is_warning]) == 2

    def test_a_trail_that_is_being_written_is_whole(self, trail: Path) -> None:
        stop = threading.Event()

        def serve() -> None:
            with AuditLog(trail, "gw", rotate_bytes=5000) as log:
                while not stop.wait(0.0005):
                    log.append(ROW)
                    anchor(trail, [log.head()])

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            until(lambda: (trail / "gw" / "000002.jsonl").exists())
            for _ in range(50):
                assert [p for p in verify(trail) if "torn tail" not in p.message] == []
        finally:
            stop.set()
            serving.join()
        assert verify(trail) == []


class TestFind:
    def test_a_request_comes_with_the_snapshots_that_it_was_decided_on(self, trail: Path) -> None:
        second = replace(ROW, attempt=2, snapshot_version=8, time_s=JANUARY_S + 1)
        later = replace(SNAPSHOT, snapshot_version=8, body='{"version": 8}')
        write(trail, replace(ROW, request_id="r-10"), gateway_id="another")
        write(trail, SNAPSHOT, ROW, replace(ROW, request_id="r-2"), later, second)
        assert [(f.decision, f.snapshot) for f in find(trail, "r-1")] == [
            (ROW, SNAPSHOT),
            (second, later),
        ]

    def test_a_snapshot_whose_row_was_lost_is_not_replaced_by_another(self, trail: Path) -> None:
        write(trail, SNAPSHOT, replace(ROW, snapshot_version=8))
        (found,) = find(trail, "r-1")
        assert found.snapshot is None

    def test_nothing_is_found_of_a_request_that_was_not_decided(self, trail: Path) -> None:
        assert find(trail, "r-1") == []
        write(trail, SNAPSHOT, ROW)
        assert find(trail, "r") == []

    def test_a_row_that_cannot_be_read_is_named(self, trail: Path) -> None:
        write(trail, ROW)
        path = trail / "gw" / "000001.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"attempt"', b'"tempted"'))
        with pytest.raises(AuditError, match=r"000001\.jsonl:2:"):
            find(trail, "r-1")
