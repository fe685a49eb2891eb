"""Files at rest: whose they are, how long they stay, and that nothing is left of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.batch.batches import Batch, Batches, WrongFile
from orchestrator.batch.database import Database
from orchestrator.batch.files import File, Files, InUse, NoSpace, NotFound
from orchestrator.batch.lines import InputLine
from orchestrator.batch.queue import Answered, Kind, Queue

NOW_S = 1000.0
FILE = File("file-1", "w", "batch", "../f", 5, NOW_S, NOW_S + 3600, 0)
BATCH = Batch(
    "batch_1", "w", "key", "{}", 0, "/v1/chat/completions", "file-1", "24h", None, None, 0, 1e9
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "batch.sqlite")


@pytest.fixture
def files(database: Database, tmp_path: Path) -> Files:
    return Files(database, tmp_path)


def keep(files: Files, file: File = FILE, most_bytes: int = 100) -> None:
    with files.writing() as draft:
        draft.write(b"x" * file.bytes)
        draft.keep(file.id)
    files.add(file, most_bytes)


def on_disk(directory: Path) -> list[str]:
    return sorted(p.name for d in ("files", "unfinished") for p in (directory / d).iterdir())


def test_a_file_that_is_not_kept_leaves_nothing(files: Files, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.writing() as draft:
        draft.write(b"content")
        raise RuntimeError
    assert on_disk(tmp_path) == []


def test_a_deleted_file_leaves_nothing(files: Files, tmp_path: Path) -> None:
    keep(files)
    with pytest.raises(NotFound):
        files.delete("other", FILE.id)
    files.delete("w", FILE.id)
    assert on_disk(tmp_path) == []
    with pytest.raises(NotFound):
        files.get("w", FILE.id, NOW_S)


def test_a_workload_keeps_no_more_than_it_may(files: Files, tmp_path: Path) -> None:
    keep(files, most_bytes=5)
    with pytest.raises(NoSpace):
        keep(files, replace(FILE, id="file-2"), most_bytes=9)
    assert on_disk(tmp_path) == ["file-1"]
    keep(files, replace(FILE, id="file-3", workload="other"), most_bytes=9)


def test_after_its_time_a_file_is_gone(files: Files, tmp_path: Path) -> None:
    keep(files)
    late_s = FILE.expires_at_s + 1
    with pytest.raises(NotFound):
        files.get("w", FILE.id, late_s)
    assert files.list("w", late_s, 10) == []
    files.expire(late_s)
    assert on_disk(tmp_path) == []


def test_a_file_that_a_batch_needs_stays_past_its_time(
    database: Database, files: Files, tmp_path: Path
) -> None:
    batches = Batches(database)
    keep(files)
    batches.create(BATCH)
    late_s = FILE.expires_at_s + 1
    with pytest.raises(InUse):
        files.delete("w", FILE.id)
    files.expire(late_s)
    assert on_disk(tmp_path) == ["file-1"]
    batches.cancel("w", BATCH.id, late_s)
    files.expire(late_s)
    assert on_disk(tmp_path) == []
    with pytest.raises(WrongFile):
        batches.create(replace(BATCH, id="batch_2", created_at_s=late_s))


def test_what_a_crash_left_is_swept_away_and_nothing_else(files: Files, tmp_path: Path) -> None:
    keep(files)
    orphan, unfinished = tmp_path / "files" / "file-9", tmp_path / "unfinished" / "9"
    fresh = tmp_path / "unfinished" / "10"
    for path in (orphan, unfinished, fresh):
        path.write_bytes(b"content")
    for path in (orphan, unfinished, tmp_path / "files" / FILE.id):
        os.utime(path, (NOW_S - 100, NOW_S - 100))
    os.utime(fresh, (NOW_S, NOW_S))
    files.sweep(NOW_S, older_than_s=50)
    assert on_disk(tmp_path) == ["10", "file-1"]


def test_deleted_lines_leave_no_content_in_the_database(
    database: Database, files: Files, tmp_path: Path
) -> None:
    batches, queue = Batches(database), Queue(database)
    keep(files)
    batches.create(BATCH)
    queue.beat("me", {}, NOW_S)
    assert batches.take_job("me", NOW_S) is not None
    batches.validated(BATCH.id, "me", NOW_S, [InputLine(1, 0, 5, "a", "m")])
    (line,) = queue.claim("me", Kind("w", "m", 0), "", NOW_S, 1, 1)
    secret = b"the answer that nobody else may read" * 500
    assert queue.record([(line, Answered(secret, True))], NOW_S) == 1
    assert batches.take_job("me", NOW_S) is not None
    batches.finished(BATCH.id, "me", NOW_S, None, None)
    batches.forget(NOW_S, 1e9)
    held = b"".join(p.read_bytes() for p in tmp_path.glob("batch.sqlite*"))
    assert b"nobody else" not in held
    assert batches.get("w", BATCH.id).status == "completed"
    batches.forget(NOW_S + 2e9, 1e9)
    with pytest.raises(NotFound):
        batches.get("w", BATCH.id)
