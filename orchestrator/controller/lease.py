"""Who leads: one process at a time, on one machine or in a Kubernetes cluster."""

import asyncio
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from orchestrator.pools.actuator import Fence, PoolError


class Lease(Protocol):
    """The right to act. Who has it goes on asking for it, or loses it."""

    period_s: float
    """How often to ask."""
    holder: str
    """Who had it, when that was last asked; empty: nobody."""

    async def keep(self) -> None:
        """Takes or renews it, if that is possible now. Raises nothing."""

    def held(self) -> bool:
        """Whether this process has it at this moment, by its own clock: false before anybody else
        could have it, also for a process that was paused."""

    async def give_up(self) -> None:
        """Lets the next one have it at once. Raises nothing."""


def identity() -> str:
    """Of this process, and of no other."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def fence(lease: Lease) -> Fence:
    def check() -> None:
        if not lease.held():
            raise PoolError("another controller leads")

    return check


def clock_s() -> float:
    """Goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class FileLease:
    """A lock on a file of one machine. The kernel takes it from a process that ends, and from no
    other: one that is paused still leads."""

    period_s = 0.5

    def __init__(self, path: Path, name: str) -> None:
        self.holder = ""
        self._path = path
        self._name = name
        self._file: int | None = None

    async def keep(self) -> None:
        if self.held():
            return
        await self.give_up()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.holder = os.pread(file, 200, 0).decode(errors="replace")
            os.close(file)
            return
        os.ftruncate(file, 0)
        os.pwrite(file, self._name.encode(), 0)
        self.holder, self._file = self._name, file

    def held(self) -> bool:
        if self._file is None:
            return False
        try:
            # A lock on a file that was taken away keeps nobody out.
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            return False

    async def give_up(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self.holder = None, ""


async def campaign(lease: Lease, lead: Callable[[], "asyncio.Task[None]"]) -> None:
    """Leads whenever the lease is held, until cancelled, or until leading ends by itself; then the
    lease is given up. Raises what leading raised."""
    leading: asyncio.Task[None] | None = None
    try:
        while True:
            await lease.keep()
            if lease.held() and leading is None:
                leading = lead()
            elif not lease.held() and leading is not None:
                await _end(leading)
                leading = None
            if leading is None:
                await asyncio.sleep(lease.period_s)
            elif (await asyncio.wait([leading], timeout=lease.period_s))[0]:
                await leading
                return
    finally:
        if leading is not None:
            await _end(leading)
        await lease.give_up()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
