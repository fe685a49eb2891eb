"""The append-only record of every attempt that an upstream answered."""

import logging
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Self

log = logging.getLogger("orchestrator.ledger")


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One attempt. Times are seconds; tokens are the engine's own count unless said otherwise."""

    request_id: str
    attempt: int
    started_at_s: float
    """Seconds since the epoch."""
    workload: str
    key_id: str
    data_class: str
    model: str
    variant: str
    pool: str
    zone: str
    policy_version: str
    snapshot_version: int
    usd_per_gpu_hour: float | None
    outcome: str
    """`complete`, `cancelled` (the client left) or the reason of a failure."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_source: str
    """`engine`, or `counted` when the engine gave no usage."""
    ttft_s: float | None
    duration_s: float


FLUSH_S = 0.2
"""How often what was appended is written."""

_NAMES = [f.name for f in fields(UsageRecord)]
_CREATE = f"CREATE TABLE IF NOT EXISTS usage ({', '.join(_NAMES)})"
_INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608
_row = attrgetter(*_NAMES)


class UsageLedger:
    """Appends to SQLite from a thread of its own, in batches.

    A ledger that cannot keep up or write drops nothing silently: it counts and logs what it lost.
    """

    def __init__(self, path: Path, capacity: int = 100_000) -> None:
        self._path = path
        self._capacity = capacity
        self._records: deque[UsageRecord] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="usage-ledger", daemon=True)
        self.lost = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is queued, then stops."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def append(self, record: UsageRecord) -> None:
        """Never blocks, and wakes no thread: that would cost the request more than the record."""
        if len(self._records) < self._capacity:
            self._records.append(record)
        else:
            self._lose(1)

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_CREATE)
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(FLUSH_S)
            batch = [self._records.popleft() for _ in range(len(self._records))]
            if not batch:
                continue
            try:
                with connection:
                    connection.executemany(_INSERT, map(_row, batch))
            except sqlite3.Error as error:
                log.error("the ledger cannot be written: %s", error)
                self._lose(len(batch))
        connection.close()

    def _lose(self, count: int) -> None:
        self.lost += count
        log.error("%d usage records are lost since the start", self.lost)
