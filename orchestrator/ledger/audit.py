"""The audit trail: what was decided for whom, on which grounds. Never what was asked or answered.

Each gateway process appends to a chain of its own under `<trail>/<gateway_id>/`.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from orchestrator.ledger.audit_anchors import Head, anchor
from orchestrator.ledger.audit_files import ChainFiles, sync_directory

log = logging.getLogger("orchestrator.ledger")


@dataclass(slots=True)
class DecisionRow:
    """One decision: for one attempt of one request.

    Nobody changes one; to have that enforced would cost a request four times as much.
    """

    time_s: float
    """Seconds since the epoch."""
    request_id: str
    attempt: int
    """From 1."""
    workload: str
    key_id: str
    data_class: str
    """The label of the effective class."""
    facts: Mapping[str, Any]
    """All that the decision was made from, snapshot and configuration aside, as JSON has it.

    It is written later, so nobody may change it: a copy of what is live.
    """
    candidates: str
    """A digest, in hex, of what could have been chosen."""
    chosen: str | None
    """`pool/variant`."""
    zone: str | None
    denied: str | None
    policy_version: str
    snapshot_version: int
    quote: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot that decisions after this row were made on."""

    snapshot_version: int
    policy_version: str
    body: str
    """The snapshot as JSON."""


@dataclass(frozen=True, slots=True)
class GapRow:
    """Rows that could not be written. Times are seconds since the epoch."""

    lost: int
    since_s: float
    time_s: float


Row = DecisionRow | SnapshotRow | GapRow

KINDS: dict[str, type[Row]] = {"decision": DecisionRow, "snapshot": SnapshotRow, "gap": GapRow}

FLUSH_S = 0.2
"""How often what was appended is written."""

_AT_ONCE = 1000
"""Rows that are sealed before they are written."""


class AuditLog:
    """Appends from a thread of its own, in batches.

    While the disk takes nothing, rows are kept up to the capacity. Those past it are counted,
    logged and, as soon as that is possible, told in the chain by a `gap` row.
    """

    def __init__(
        self,
        trail: Path,
        gateway_id: str,
        rotate_bytes: int = 64 * 1024 * 1024,
        capacity: int = 100_000,
    ) -> None:
        self._trail = trail
        self._gateway_id = gateway_id
        self._capacity = capacity
        self._rows: deque[DecisionRow | SnapshotRow] = deque()
        self._files = ChainFiles(trail, gateway_id, rotate_bytes)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._refused = 0
        self._unencodable = 0
        self._told = 0
        self._told_s = time.time()
        self._failing = False

    def __enter__(self) -> Self:
        """Raises OSError: nothing should be decided where it cannot be put on record.

        FileExistsError means that the gateway id was used before; a chain has one writer, ever.
        """
        (self._trail / self._gateway_id).mkdir(parents=True)
        # With its beginning anchored, a chain that vanishes as a whole is missed.
        anchor(self._trail, [self.head()])
        sync_directory(self._trail)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is queued, anchors the end, then stops."""
        self._stopping.set()
        self._thread.join(timeout=10)

    @property
    def lost(self) -> int:
        """Rows since the start that will never be written."""
        return self._refused + self._unencodable

    def append(self, row: DecisionRow | SnapshotRow) -> bool:
        """Never blocks, and wakes no thread. False: there is no room, the row is lost."""
        if len(self._rows) < self._capacity:
            self._rows.append(row)
            return True
        self._refused += 1
        return False

    def head(self) -> Head:
        """The last row that is safe on disk: what should be anchored, here or elsewhere."""
        return self._files.head

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(FLUSH_S)
            try:
                self._flush()
                if stopping:
                    self._end()
                self._failing = False
            except OSError as error:
                if not self._failing:
                    log.error("the audit trail cannot be written: %s", error.strerror or error)
                self._failing = True
        self._files.close()
        if self._rows:
            log.error("%d audit rows were never written", len(self._rows))

    def _flush(self) -> None:
        self._files.write()
        while self._rows:
            for _ in range(min(len(self._rows), _AT_ONCE)):
                self._seal(self._rows[0])
                self._rows.popleft()
            self._files.write()
        self._tell_losses()
        self._files.write()
        self._files.sync()

    def _seal(self, row: DecisionRow | SnapshotRow) -> None:
        try:
            content = orjson.dumps(row)
        except orjson.JSONEncodeError:
            self._unencodable += 1
            return
        self._files.add("decision" if isinstance(row, DecisionRow) else "snapshot", content)

    def _tell_losses(self) -> None:
        # In this order: what is lost from here on comes after `now_s`, and is told next time.
        now_s, lost = time.time(), self.lost
        if lost > self._told:
            gap = GapRow(lost - self._told, self._told_s, now_s)
            self._files.add("gap", orjson.dumps(gap))
            log.error("%d audit rows are lost since the start", lost)
            self._told = lost
        self._told_s = now_s

    def _end(self) -> None:
        self._files.add("end", orjson.dumps({"time_s": time.time()}))
        self._files.write()
        self._files.sync()
        anchor(self._trail, [self.head()])
