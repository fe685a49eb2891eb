"""The append-only record of what every attempt used, whether an endpoint answered it or not."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from orchestrator.ledger.writer import BackgroundWriter


class UsageRecord(NamedTuple):
    """One attempt, as it ended."""

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
    """`complete`; `cancelled`, when its client left or another attempt was faster; or the reason of
    a failure."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_source: str
    """Whose count the tokens are: `engine`; `counted`, by the gateway, where the engine gave none;
    `none` where nothing reached the endpoint."""
    ttft_s: float | None
    duration_s: float


_NAMES = UsageRecord._fields
_CREATE = f"CREATE TABLE IF NOT EXISTS usage ({', '.join(_NAMES)})"
_INSERT = f"INSERT INTO usage VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608


BUSY_S = 5.0
"""How long one write waits for another process that has the database locked."""
_BROKEN_RECORD = (
    OverflowError,
    UnicodeError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""A value that SQLite cannot hold: no later attempt would go better."""


class UsageLedger(BackgroundWriter[UsageRecord]):
    """Appends to SQLite, a batch at a time."""

    def __init__(self, path: Path, capacity: int = 100_000) -> None:
        super().__init__("usage-ledger", capacity)
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def _flush(self) -> None:
        try:
            connection = self._connection = self._connection or self._connect()
            for batch in self._batches():
                try:
                    with connection:
                        connection.executemany(_INSERT, batch)
                except _BROKEN_RECORD:
                    self._drop(_insert_sound(connection, batch))
        except BaseException:
            self._close(whole=False)
            raise

    def _close(self, whole: bool) -> None:
        connection, self._connection = self._connection, None
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


def _insert_sound(connection: sqlite3.Connection, batch: Iterable[UsageRecord]) -> int:
    """Inserts what can be stored; how many cannot."""
    broken = 0
    with connection:
        for record in batch:
            try:
                connection.execute(_INSERT, record)
            except _BROKEN_RECORD:
                broken += 1
    return broken
