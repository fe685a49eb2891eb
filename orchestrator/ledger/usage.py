"""The append-only record of every attempt that an upstream answered."""

import logging
import sqlite3
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

log = logging.getLogger("orchestrator.ledger")


class UsageRecord(NamedTuple):
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

_NAMES = UsageRecord._fields
_CREATE = f"CREATE TABLE IF NOT EXISTS usage ({', '.join(_NAMES)})"
_INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608


BUSY_S = 5.0
"""How long one write waits for another process that has the database locked."""
_BROKEN_RECORD = (
    OverflowError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""A value that SQLite cannot hold: no later attempt would go better."""


class UsageLedger:
    """Appends to SQLite from a thread of its own, in batches.

    What cannot be written now is kept, up to `capacity` records, and written later; what is over
    that is counted in `lost`, and logged.
    """

    def __init__(self, path: Path, capacity: int = 100_000) -> None:
        self._path = path
        self._capacity = capacity
        self._records: deque[UsageRecord] = deque()
        self._batch: list[UsageRecord] = []
        """Taken from the queue and not written yet."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage-ledger", daemon=True)
        self.lost = 0

    def __enter__(self) -> Self:
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
        self._thread.join(timeout=2 * BUSY_S)
        self.lost += len(self._batch) + len(self._records)
        if self.lost:
            log.error("%d usage records are lost", self.lost)

    def append(self, record: UsageRecord) -> None:
        """Never blocks, and wakes no thread: that would cost the request more than the record."""
        if len(self._records) + len(self._batch) < self._capacity:
            self._records.append(record)
        else:
            self.lost += 1

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        stopping = False
        said: tuple[str, int] = "", 0
        while not stopping:
            stopping = self._stopping.wait(FLUSH_S)
            trouble = ""
            try:
                connection = connection or self._connect()
                self._flush(connection)
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
                if connection is not None:
                    connection.close()
                    connection = None
            if (trouble, self.lost) != said:
                said = trouble, self.lost
                log.error("the ledger: %s; %d records lost", trouble or "writes again", self.lost)
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_CREATE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _flush(self, connection: sqlite3.Connection) -> None:
        while self._batch or self._records:
            if not self._batch:
                self._batch = [self._records.popleft() for _ in range(len(self._records))]
            try:
                with connection:
                    connection.executemany(_INSERT, self._batch)
            except _BROKEN_RECORD:
                self._without_the_broken(connection)
            self._batch = []

    def _without_the_broken(self, connection: sqlite3.Connection) -> None:
        broken = 0
        with connection:
            for record in self._batch:
                try:
                    connection.execute(_INSERT, record)
                except _BROKEN_RECORD:
                    broken += 1
        self.lost += broken
