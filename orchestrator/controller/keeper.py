"""Brings the memory to the disk, and waits for no disk longer than a tick can bear."""

import asyncio
import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.controller.memory import Memory, store

LIMIT_S = 5.0


class Keeper:
    """One write at a time. All methods raise OSError."""

    def __init__(self, path: Path, leads: Callable[[], bool]) -> None:
        self._path = path
        self._leads = leads
        self._turn = asyncio.Lock()
        self._under_way: asyncio.Future[None] | None = None

    async def write(self, memory: Memory) -> None:
        async with self._turn:
            await self._write(memory)

    async def change(self, memory: Memory, change: Callable[[Memory], None]) -> None:
        """Changes the memory once the change is on the disk. `change` sets fields, and leaves what
        they held as it is."""
        async with self._turn:
            changed = memory.model_copy()
            change(changed)
            await self._write(changed)
            change(memory)

    async def _write(self, memory: Memory) -> None:
        if self._under_way is not None and not self._under_way.done():
            raise OSError(errno.ETIMEDOUT, "the disk still has not taken an earlier write")
        given_up = threading.Event()
        text = memory.model_dump_json()
        self._under_way = writing = _in_thread(
            lambda: store(self._path, text, lambda: self._leads() and not given_up.is_set())
        )
        try:
            await asyncio.wait([writing], timeout=LIMIT_S)
        finally:
            # What comes late must not take the place of something newer.
            given_up.set()
        if not writing.done():
            raise OSError(errno.ETIMEDOUT, f"the disk has not taken it in {LIMIT_S:g} s")
        writing.result()


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """In a thread that nobody waits for at the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="memory", daemon=True).start()
    return future
