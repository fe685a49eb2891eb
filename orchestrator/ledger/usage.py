"""The append-only record of every attempt that an upstream answered."""

import logging
import queue
import sqlite3
import threading
from dataclasses import astuple, dataclass, fields
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


_COLUMNS = ", ".join(f.name for f in fields(UsageRecord))
_CREATE = f"CREATE TABLE IF NOT EXISTS usage ({_COLUMNS})"
_INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * len(fields(UsageRecord)))})"  # noqa: S608


class UsageLedger:
    """Appends to SQLite from a thread of its own, in batches.

    A ledger that cannot keep up or write drops nothing silently: it counts and logs what it lost.
    """

    def __init__(self, path: Path, capacity: int = 100_000) -> None:
        self._path = path
        self._queue: queue.Queue[UsageRecord | None] = queue.Queue(capacity)
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
        self._queue.put(None)
        self._thread.join(timeout=10)

    def append(self, record: UsageRecord) -> None:
        """Never blocks."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lose(1)

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_CREATE)
        open_ = True
        while open_:
            batch = [self._queue.get()]
            while len(batch) < 1000:
                try:
                    batch.append(self._queue.get(timeout=0.2))
                except queue.Empty:
                    break
            records = [r for r in batch if r is not None]
            open_ = len(records) == len(batch)
            try:
                with connection:
                    connection.executemany(_INSERT, map(astuple, records))
            except sqlite3.Error as error:
                log.error("the ledger cannot be written: %s", error)
                self._lose(len(records))
        connection.close()

    def _lose(self, count: int) -> None:
        self.lost += count
        log.error("%d usage records are lost since the start", self.lost)
