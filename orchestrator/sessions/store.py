"""What was once raised, shared by all gateways of a node and kept over restarts."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.config.data_class import DataClass
from orchestrator.sessions.winnowing import Fingerprints

FILTER_BITS = 24
BUSY_TIMEOUT_S = 0.5
MAX_ASKED = 500


class SessionsUnavailable(Exception):
    """The store cannot be read or written: nobody knows what was raised."""


class SessionStore:
    """Fingerprints with the highest class that they were seen in. Rows only come, and never
    expire.

    A filter in memory answers for what was never raised, so that an ordinary request costs no
    query; it takes what anybody adds as soon as it is added.
    """

    def __init__(self, path: Path) -> None:
        """Raises SessionsUnavailable."""
        self._filter = np.zeros(1 << FILTER_BITS, bool)
        self._reading, self._writing = threading.Lock(), threading.Lock()
        """One at a time on each connection. There are two, so that no read waits for the disk of a
        write, or sees rows within its transaction that may never be."""
        self._seen_row = 0
        self._seen_version = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writes, self._reads = _connected(path), _connected(path)
            self._writes.execute("PRAGMA journal_mode=WAL")
            self._writes.execute(
                "CREATE TABLE IF NOT EXISTS raised (row INTEGER PRIMARY KEY AUTOINCREMENT, "
                "fingerprint INTEGER NOT NULL, data_class INTEGER NOT NULL)"
            )
            self._writes.execute(
                "CREATE UNIQUE INDEX IF NOT EXISTS raised_once ON raised (fingerprint, data_class)"
            )
            self._refresh()
        except (OSError, sqlite3.Error) as error:
            raise SessionsUnavailable(type(error).__name__) from None

    def close(self) -> None:
        self._reads.close()
        self._writes.close()

    def highest(self, fingerprints: Fingerprints) -> DataClass:
        """The highest class that any of them was seen in. Raises SessionsUnavailable."""
        try:
            with self._reading:
                return self._highest(fingerprints)
        except sqlite3.Error as error:
            raise SessionsUnavailable(type(error).__name__) from None

    def _highest(self, fingerprints: Fingerprints) -> DataClass:
        self._refresh()
        maybe = fingerprints.compress(self._filter.take(_slots(fingerprints)))
        if not len(maybe):
            return DataClass.PUBLIC
        return max(map(self._ask, np.array_split(maybe, -(-len(maybe) // MAX_ASKED))))

    def add(self, fingerprints: Fingerprints, data_class: DataClass) -> None:
        """Returns when every gateway of the node can see them. Raises SessionsUnavailable."""
        rows = [(int(f), int(data_class)) for f in fingerprints.view(np.int64)]
        try:
            with self._writing:
                self._insert(rows)
        except sqlite3.Error as error:
            raise SessionsUnavailable(type(error).__name__) from None

    def _insert(self, rows: list[tuple[int, int]]) -> None:
        self._writes.execute("BEGIN IMMEDIATE")
        try:
            self._writes.executemany(
                "INSERT OR IGNORE INTO raised (fingerprint, data_class) VALUES (?, ?)", rows
            )
            self._writes.execute("COMMIT")
        except BaseException:
            self._writes.execute("ROLLBACK")
            raise

    def _ask(self, fingerprints: Fingerprints) -> DataClass:
        marks = ", ".join("?" * len(fingerprints))
        (highest,) = self._reads.execute(
            f"SELECT max(data_class) FROM raised WHERE fingerprint IN ({marks})",  # noqa: S608
            [int(f) for f in fingerprints.view(np.int64)],
        ).fetchone()
        return DataClass(highest or 0)

    def _refresh(self) -> None:
        (version,) = self._reads.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version:
            return
        rows = self._reads.execute(
            "SELECT row, fingerprint FROM raised WHERE row > ? ORDER BY row", (self._seen_row,)
        ).fetchall()
        if rows:
            self._filter[_slots(np.array([f for _, f in rows], np.int64).view(np.uint64))] = True
            self._seen_row = rows[-1][0]
        self._seen_version = version


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


def _slots(fingerprints: Fingerprints) -> npt.NDArray[np.int64]:
    return (fingerprints >> np.uint64(64 - FILTER_BITS)).view(np.int64)
