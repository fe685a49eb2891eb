"""What was asked for in the last minute, counted by all gateways of a node together, without locks.

The gateways hold one file in memory. Each subject has a slot in it, with a row for each gateway and
in that a bucket for each second of the system's monotonic clock. A gateway writes its own row alone
and reads them all. Who writes before it reads cannot miss another that does the same: of two that
come at once, one at least sees both. What a gateway that crashed has counted is forgotten with the
minute.
"""

import fcntl
import hashlib
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from orchestrator.policy.arrays import Ints

WINDOW_S = 60
ROWS = 32
"""Gateways of a node."""
SLOTS = 8192
"""Subjects that are counted at one time."""
IDLE_S = 2 * WINDOW_S
"""After which a subject that is not asked for gives its slot to another."""
LOCK_TIMEOUT_S = 0.02
"""To find a slot for a subject takes microseconds; whoever holds the lock longer is stopped."""
OPEN_TIMEOUT_S = 5.0
"""For the lock when a gateway begins, and serves nobody yet."""
PATIENT_AGAIN_S = 1.0
"""After a lock that was waited for in vain. Nobody else is served while one waits: those who come
in between look at the lock once."""

_BUCKETS = 64
"""More than the seconds of a window, so that none is written over while it counts."""
_TOKENS = 40
"""Bits of a count that hold its tokens; those above hold its requests: they change together."""
_ROW = 2 * _BUCKETS
"""Cells of a row: the second of each bucket, then what was counted in it."""
_SLOT = ROWS * _ROW
_ROWS_CLAIMED, _SLOTS_USED, _TAGS, _LAST, _TABLE = 0, 1, 8, 8 + SLOTS, 8 + 2 * SLOTS
"""Where things are, in cells of 8 bytes: how many rows and slots were ever taken, the subject of
each slot by a hash, the last second that was counted there, and the slots."""
_CELL = 8
_SIZE = (_TABLE + SLOTS * _SLOT) * _CELL
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Windows:
    """As one gateway sees and writes them."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, also when all rows are taken."""
        # The clock begins anew at every boot, and nothing of before counts.
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "0"
        here = folder / boot
        here.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if other != here and _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
        self._lock = _opened(here / "lock")
        self._file = _opened(here / "counts")
        os.truncate(self._file, _SIZE)
        self._allocate(0, _TABLE)
        self._row_lock = -1
        self._patient_from_s = 0.0
        held = mmap.mmap(self._file, _SIZE)
        self._cells = memoryview(held).cast("q")
        self._array: Ints = np.frombuffer(held, np.int64)
        self._known: dict[str, _Window] = {}
        with self._alone(OPEN_TIMEOUT_S):
            self._row, self._row_lock = _first_free_row(here)
            self._cells[_ROWS_CLAIMED] = max(self._cells[_ROWS_CLAIMED], self._row + 1)

    def close(self) -> None:
        """What was counted stays."""
        for descriptor in (self._row_lock, self._file, self._lock):
            os.close(descriptor)

    def add(self, subject: str, second: int, requests: int, tokens: int) -> None:
        """Negative for what was counted at this second and is taken back; nothing happens when that
        second is forgotten. Raises OSError."""
        change = (requests << _TOKENS) + tokens
        window = self._window(subject, second)
        self._count(window, second, change)
        if self._cells[window.tag_at] != window.tag:
            # The slot was given away at this moment.
            self._count(window, second, -change)
            del self._known[subject]
            self._count(self._window(subject, second), second, change)

    def total(self, subject: str, second: int) -> tuple[int, int]:
        """Requests and tokens of the window that ends with this second. Raises OSError."""
        window = self._window(subject, second)
        fresh = window.seconds >= second - WINDOW_S
        return _unpacked(int(np.add.reduce(window.counts[fresh])))

    def by_second(self, subject: str, second: int) -> list[tuple[int, int, int]]:
        """The seconds of the window that have a count, in order, with requests and tokens."""
        window = self._window(subject, second)
        fresh = window.seconds >= second - WINDOW_S
        counts: dict[int, int] = {}
        for at, count in zip(
            window.seconds[fresh].tolist(), window.counts[fresh].tolist(), strict=True
        ):
            counts[at] = counts.get(at, 0) + count
        return [(at, *_unpacked(count)) for at, count in sorted(counts.items()) if count]

    def _count(self, window: "_Window", second: int, change: int) -> None:
        cells, at = self._cells, window.own_at + second % _BUCKETS
        if cells[at] != second:
            if change < 0:
                return
            # In this order: who reads meanwhile finds nothing, and never the old count as new.
            cells[at + _BUCKETS] = 0
            cells[at] = second
            cells[window.tag_at - _TAGS + _LAST] = second
        cells[at + _BUCKETS] += change

    def _window(self, subject: str, second: int) -> "_Window":
        window = self._known.get(subject)
        if window is None or self._cells[window.tag_at] != window.tag:
            window = self._known[subject] = self._find(subject, second)
        elif window.rows != self._cells[_ROWS_CLAIMED]:
            window = self._known[subject] = self._view(window.tag, window.tag_at - _TAGS)
        return window

    def _find(self, subject: str, second: int) -> "_Window":
        if len(self._known) >= SLOTS:
            self._known.clear()
        tag = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8]) >> 1
        with self._alone():
            slot = self._slot(tag, second)
        return self._view(tag, slot)

    def _view(self, tag: int, slot: int) -> "_Window":
        start, rows = _TABLE + slot * _SLOT, self._cells[_ROWS_CLAIMED]
        table = self._array[start : start + rows * _ROW].reshape(rows, 2, _BUCKETS)
        own_at = start + self._row * _ROW
        return _Window(tag, _TAGS + slot, own_at, rows, table[:, 0], table[:, 1])

    def _slot(self, tag: int, second: int) -> int:
        """Of this subject, or one that it gets now."""
        used = self._cells[_SLOTS_USED]
        found = np.flatnonzero(self._array[_TAGS : _TAGS + used] == tag)
        if len(found):
            return int(found[0])
        idle = np.flatnonzero(self._array[_LAST : _LAST + used] < second - IDLE_S)
        if len(idle):
            slot = int(idle[0])
        elif used < SLOTS:
            slot = used
            self._allocate(_TABLE + slot * _SLOT, _SLOT)
            self._cells[_SLOTS_USED] = used + 1
        else:
            raise OSError(f"{SLOTS} subjects are counted already")
        self._cells[_LAST + slot] = second
        self._cells[_TAGS + slot] = tag
        return slot

    def _allocate(self, start: int, cells: int) -> None:
        """Room on the disk: to write into a hole of a file on a full disk would end the process.
        Raises OSError."""
        os.posix_fallocate(self._file, start * _CELL, cells * _CELL)

    @contextmanager
    def _alone(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Raises TimeoutError, which is an OSError, rather than wait for one that is stopped."""
        began_s = time.monotonic()
        until_s = began_s + (timeout_s if began_s >= self._patient_from_s else 0)
        while not _locked(self._lock):
            now_s = time.monotonic()
            if now_s >= until_s:
                if until_s > began_s:
                    self._patient_from_s = now_s + PATIENT_AGAIN_S
                raise TimeoutError("another gateway holds the lock of the limits")
            time.sleep(0.0005)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class _Window:
    """Where a subject is counted."""

    __slots__ = ("counts", "own_at", "rows", "seconds", "tag", "tag_at")

    def __init__(
        self, tag: int, tag_at: int, own_at: int, rows: int, seconds: Ints, counts: Ints
    ) -> None:
        self.tag, self.tag_at, self.own_at, self.rows = tag, tag_at, own_at, rows
        self.seconds, self.counts = seconds, counts


def _unpacked(count: int) -> tuple[int, int]:
    return count >> _TOKENS, count & ((1 << _TOKENS) - 1)


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _first_free_row(folder: Path) -> tuple[int, int]:
    """With the descriptor that holds it, for as long as the process lives."""
    for row in range(ROWS):
        descriptor = _opened(folder / f"row-{row}")
        if _locked(descriptor):
            return row, descriptor
        os.close(descriptor)
    raise OSError(f"{folder}: {ROWS} gateways count here already; stop one")


def _is_left(folder: Path) -> bool:
    """Whether no gateway counts there: it is of an earlier boot."""
    for file in folder.glob("row-*"):
        descriptor = _opened(file)
        is_free = _locked(descriptor)
        os.close(descriptor)
        if not is_free:
            return False
    return True
