"""The event log: bounded, kept over restarts, and in nobody's way when the disk fails."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.controller import events
from orchestrator.controller.events import EventKind, EventLog


def record(log: EventLog, number: int, now_s: float = 100) -> None:
    log.record(EventKind.SCALE, "p/v", f"scale to {number}", "because", now_s=now_s)


def numbers(log: EventLog) -> list[int]:
    return [int(event.what.split()[-1]) for event in log.after(0)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def inside() -> None:
        await test()

    asyncio.run(inside())


async def written(log: EventLog, *found: int) -> None:
    for number in found:
        record(log, number)
    await log.close()


def test_events_are_kept_over_a_restart_and_their_ids_rise(tmp_path: Path) -> None:
    async def test() -> None:
        await written(EventLog(tmp_path / "e.jsonl"), 1, 2)
        again = EventLog(tmp_path / "e.jsonl")
        # The clock went back meanwhile.
        record(again, 3, now_s=1)
        assert numbers(again) == [1, 2, 3]
        ids = [event.id for event in again.after(0)]
        assert ids == sorted(set(ids))
        assert [event.id for event in again.after(ids[1])] == ids[2:]

    run(test)


def test_files_stay_bounded_and_the_newest_events_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_FILE_BYTES", 400)

    async def test() -> None:
        log = EventLog(tmp_path / "e.jsonl")
        for number in range(60):
            await written(log, number)
        assert numbers(EventLog(tmp_path / "e.jsonl"))[-3:] == [57, 58, 59]

    run(test)
    files = list(tmp_path.iterdir())
    assert len(files) == 1 + events.OLD_FILES
    assert all(file.stat().st_size < 800 for file in files)


def test_a_full_disk_loses_nothing_that_memory_holds(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "e.jsonl"
        log = EventLog(path)
        path.symlink_to("/dev/full")
        await written(log, 1)
        await written(log, 2)
        assert log.failure
        assert numbers(log) == [1, 2]
        path.unlink()
        await written(log, 3)
        assert not log.failure
        assert numbers(EventLog(path)) == [1, 2, 3]

    run(test)


def test_what_memory_cannot_hold_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 3)

    async def test() -> None:
        path = tmp_path / "e.jsonl"
        log = EventLog(path)
        path.symlink_to("/dev/full")
        await written(log, 1, 2, 3, 4, 5)
        assert log.lost == 2
        assert numbers(log) == [3, 4, 5]

    run(test)


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "e.jsonl"
        log = EventLog(path)
        os.mkfifo(path)  # whoever opens it waits for a reader
        for number in (1, 2):
            record(log, number)
            log.flush()
            await asyncio.sleep(0.01)
        assert numbers(log) == [1, 2]
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        await log.close()
        os.close(reader)

    run(test)


def test_a_line_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "e.jsonl"
        await written(EventLog(path), 1, 2)
        path.write_bytes(path.read_bytes()[:-5])
        again = EventLog(path)
        assert numbers(again) == [1]
        await written(again, 3)
        assert numbers(EventLog(path)) == [1, 3]

    run(test)
