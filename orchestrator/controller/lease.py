"""Who leads: one process at a time, on one machine or in a Kubernetes cluster."""

import asyncio
import fcntl
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from orchestrator.pools.actuator import Fence, PoolError

log = logging.getLogger("orchestrator.controller")


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
        self._told = ""

    async def keep(self) -> None:
        if self.held():
            return
        await self.give_up()
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._tell(f"{self._path} cannot be opened: {error.strerror}; make it writable")
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.holder = _text(file)
            os.close(file)
            return
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, self._name.encode(), 0)
        except OSError as error:
            # The lock is what counts: the name is for those who ask.
            self._tell(f"{self._path} does not name its holder: {error.strerror}")
        self.holder, self._file = self._name, file

    def held(self) -> bool:
        if self._file is None:
            return False
        try:
            # A lock on a file that was taken away keeps nobody out.
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            return False

    def _tell(self, trouble: str) -> None:
        """Once, although it is tried again twice a second."""
        if trouble != self._told:
            log.error("the leader's lock: %s", trouble)
        self._told = trouble

    async def give_up(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self.holder = None, ""


def _text(file: int) -> str:
    try:
        return os.pread(file, 200, 0).decode(errors="replace")
    except OSError:
        return ""


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
