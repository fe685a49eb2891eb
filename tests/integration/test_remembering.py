"""Raised conversations are written to the disk while others are answered, and before they are."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sessions.store import SessionStore
from tests.integration.engines import World, run

CARD = [{"role": "user", "content": "Charge 4111-1111-1111-1111, please."}]


class Disk:
    """On which a write ends when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lets_pass: int = 0) -> None:
        """`lets_pass`: so many writes before."""
        self.writing, self.go_on = threading.Event(), threading.Event()
        self.writes = 0
        insert = SessionStore._insert

        def slow(store: SessionStore, rows: Any) -> None:
            self.writes += 1
            if self.writes > lets_pass:
                self.writing.set()
                assert self.go_on.wait(20), "the event loop waited for the disk"
            insert(store, rows)

        monkeypatch.setattr(SessionStore, "_insert", slow)

    async def is_written(self) -> None:
        while not self.writing.is_set():
            await asyncio.sleep(0.01)


async def asked(w: World, **how: Any) -> tuple[int, str]:
    async with w.post(**how) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("stream", [True, False])
def test_others_are_answered_while_a_raised_conversation_is_written_and_it_is_sent_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    disk = Disk(monkeypatch)

    async def test(w: World) -> None:
        raised = asyncio.create_task(asked(w, messages=CARD, stream=stream))
        await disk.is_written()
        assert (await asked(w, stream=stream))[0] == 200
        assert len(w.home.received) == 1
        disk.go_on.set()
        assert (await raised)[0] == 200
        assert len(w.home.received) == 2

    run(tmp_path, test)


@pytest.mark.parametrize("stream", [True, False])
def test_others_are_answered_while_an_answer_is_written_whose_end_is_sent_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    disk = Disk(monkeypatch, lets_pass=1)

    async def test(w: World) -> None:
        raised = asyncio.create_task(asked(w, messages=CARD, stream=stream))
        await disk.is_written()
        assert (await asked(w, stream=stream))[0] == 200
        assert not raised.done()
        disk.go_on.set()
        status, said = await raised
        assert status == 200
        assert not stream or said.endswith("data: [DONE]\n\n")

    run(tmp_path, test)


def test_a_conversation_whose_client_goes_while_its_answer_is_written_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, lets_pass=1)

    def rows() -> int:
        (count,) = (
            sqlite3.connect(tmp_path / "sessions.sqlite")
            .execute("SELECT count(*) FROM raised")
            .fetchone()
        )
        return int(count)

    async def test(w: World) -> None:
        raised = asyncio.create_task(asked(w, messages=CARD, stream=True))
        await disk.is_written()
        before = rows()
        raised.cancel()
        await asyncio.gather(raised, return_exceptions=True)
        disk.go_on.set()
        while rows() == before:
            await asyncio.sleep(0.01)

    run(tmp_path, test)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_cannot_be_written_is_refused_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, stream: bool
) -> None:
    insert, writes = SessionStore._insert, 0

    def full(store: SessionStore, rows: Any) -> None:
        nonlocal writes
        writes += 1
        if writes >= fails_at:
            raise sqlite3.OperationalError("database or disk is full")
        insert(store, rows)

    async def test(w: World) -> None:
        status, said = await asked(w, messages=CARD, stream=stream)
        assert "sessions_unavailable" in said
        assert "[DONE]" not in said
        assert status == (200 if stream and fails_at == 2 else 503)
        assert len(w.home.received) == fails_at - 1

    monkeypatch.setattr(SessionStore, "_insert", full)
    run(tmp_path, test)
