"""The access log: one line a request, in files that do not grow without end."""

import os
import threading
from pathlib import Path

import orjson
import pytest

from orchestrator.gateway import access_log
from orchestrator.gateway.access_log import AccessEntry, AccessLog


def entry(request_id: str = "r") -> AccessEntry:
    return AccessEntry(1.5, "g", request_id, None, "/v1/models", 200, None, 0.25)


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_is_json_and_says_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.jsonl"
    with AccessLog(path) as written:
        written.append(entry())
    (line,) = lines(path)
    assert line["duration_s"] == 0.25
    assert line["workload"] is None
    assert path.stat().st_mode & 0o077 == 0, "for the operator alone"


def test_what_is_written_is_bounded_and_the_latest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    written = AccessLog(path, rotate_bytes=2000, files=3)
    for number in range(100):
        written.append(entry(f"r{number}"))
        written._flush()
    files = [path, path.with_name("access.jsonl.1"), path.with_name("access.jsonl.2")]
    there = [f for f in tmp_path.iterdir() if f.suffix != ".lock"]
    assert set(there) <= set(files)
    assert all(f.stat().st_size < 3000 for f in there)
    kept = [line["request_id"] for f in reversed(files) if f.exists() for line in lines(f)]
    assert kept == [f"r{number}" for number in range(100 - len(kept), 100)]
    assert len(kept) >= 10


def test_gateways_that_share_a_file_tear_no_line_and_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"

    def one(gateway: int) -> None:
        written = AccessLog(path, rotate_bytes=5000, files=100)
        for number in range(100):
            written.append(entry(f"{gateway}-{number}"))
            written._flush()

    threads = [threading.Thread(target=one, args=(gateway,)) for gateway in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [f for f in tmp_path.iterdir() if f.suffix != ".lock"]
    assert len(files) > 3
    found = sorted(str(line["request_id"]) for f in files for line in lines(f))
    assert found == sorted(f"{gateway}-{n}" for gateway in range(4) for n in range(100))


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.jsonl"
    written = AccessLog(path)
    written.append(entry("a"))
    written._flush()
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    written.append(entry("b"))
    with monkeypatch.context() as patched:
        patched.setattr(access_log.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            written._flush()
    assert [line["request_id"] for line in lines(path)] == ["a"]
    written._flush()
    assert [line["request_id"] for line in lines(path)] == ["a", "b"]


def test_a_file_that_cannot_be_moved_aside_repeats_no_line(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    written = AccessLog(path, rotate_bytes=1, files=2)
    written.append(entry("a"))
    written._flush()
    in_the_way = tmp_path / "access.jsonl.1"
    in_the_way.mkdir()
    written.append(entry("b"))
    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            written._flush()
    in_the_way.rmdir()
    written._flush()
    assert [line["request_id"] for f in (in_the_way, path) for line in lines(f)] == ["a", "b"]
