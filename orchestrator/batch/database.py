"""The database of files, batches and lines, shared by all gateways of a node."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_S = 30.0
"""How long a statement waits for another process that writes."""

# Lines are counted as they change: a look at them would take longer the more there are.
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workload TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at_s REAL NOT NULL,
    expires_at_s REAL NOT NULL,
    claimed INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workload TEXT NOT NULL,
    key_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    claimed INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    output_expires_after_s REAL,
    metadata TEXT,
    status TEXT NOT NULL,
    ending TEXT,
    errors TEXT,
    owner TEXT,
    output_file_id TEXT,
    error_file_id TEXT,
    created_at_s REAL NOT NULL,
    expires_at_s REAL NOT NULL,
    in_progress_at_s REAL,
    finalizing_at_s REAL,
    cancelling_at_s REAL,
    ended_at_s REAL,
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    busy_s REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS batches_going_on ON batches (status)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');
CREATE TABLE IF NOT EXISTS lines (
    batch_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    model TEXT NOT NULL,
    data_class INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending',
    claim INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    place TEXT NOT NULL DEFAULT '',
    not_before_s REAL NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    result BLOB,
    PRIMARY KEY (batch_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lines_pending
    ON lines (batch_id, model, data_class, number, not_before_s) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS lines_open ON lines (place, owner) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS kinds (
    batch_id TEXT NOT NULL,
    model TEXT NOT NULL,
    data_class INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    open INTEGER NOT NULL,
    PRIMARY KEY (batch_id, model, data_class)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS a_line_comes AFTER INSERT ON lines BEGIN
    INSERT INTO kinds VALUES (new.batch_id, new.model, new.data_class, 1, 0)
        ON CONFLICT DO UPDATE SET pending = pending + 1;
END;
CREATE TRIGGER IF NOT EXISTS a_line_changes AFTER UPDATE OF state, data_class ON lines
WHEN old.state != new.state OR old.data_class != new.data_class BEGIN
    UPDATE kinds SET pending = pending - (old.state = 'pending'), open = open - (old.state = 'open')
        WHERE batch_id = old.batch_id AND model = old.model AND data_class = old.data_class;
    INSERT INTO kinds VALUES (
        new.batch_id, new.model, new.data_class, new.state = 'pending', new.state = 'open'
    ) ON CONFLICT DO UPDATE SET pending = pending + excluded.pending, open = open + excluded.open;
END;
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY,
    seen_s REAL NOT NULL,
    sent TEXT NOT NULL
) STRICT;
"""


class Database:
    """One connection, for one thread at a time. Methods of what is built on it raise
    sqlite3.Error and OSError; the next call then tries anew."""

    def __init__(self, path: Path) -> None:
        """Opens nothing yet."""
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._open()
            except sqlite3.Error:
                self.close()
                raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, with nobody else's between its reads and its writes. What it wrote is on
        disk when the context is left."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect(self._path)
        return self._connection


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        # Two that make it what it is at once would find it locked, and not wait.
        fcntl.flock(directory, fcntl.LOCK_EX)
        # SQLite gives the files beside it the same permissions.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # Content that was deleted is not to be found in free pages.
            connection.execute("PRAGMA secure_delete=ON")
            connection.executescript(SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(directory)
