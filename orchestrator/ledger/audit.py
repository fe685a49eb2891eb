"""The audit trail: what was decided for whom, on which grounds. Never what was asked or answered.

Each gateway process appends to a chain of its own under `<trail>/<gateway_id>/`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from orchestrator.durable import sync_directory
from orchestrator.ledger.audit_anchors import Head, anchor
from orchestrator.ledger.audit_files import ChainFiles
from orchestrator.ledger.writer import BackgroundWriter


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


class AuditLog(BackgroundWriter[DecisionRow | SnapshotRow]):
    """Appends to a chain. Lost rows are told in it by a `gap` row, as soon as that is possible."""

    def __init__(
        self,
        trail: Path,
        gateway_id: str,
        rotate_bytes: int = 64 * 1024 * 1024,
        capacity: int = 100_000,
    ) -> None:
        super().__init__("audit-log", capacity)
        self._trail = trail
        self._gateway_id = gateway_id
        self._files = ChainFiles(trail, gateway_id, rotate_bytes)
        self._in_gaps = 0
        """Lost rows that a gap row tells of."""
        self._gap_since_s = time.time()

    def __enter__(self) -> Self:
        """Raises OSError: nothing should be decided where it cannot be put on record.

        FileExistsError means that the gateway id was used before; a chain has one writer, ever.
        """
        (self._trail / self._gateway_id).mkdir(parents=True)
        # With its beginning anchored, a chain that vanishes as a whole is missed.
        anchor(self._trail, [self.head()])
        sync_directory(self._trail)
        return super().__enter__()

    def head(self) -> Head:
        """The last row that is safe on disk: what should be anchored, here or elsewhere."""
        return self._files.head

    def _flush(self) -> None:
        self._files.write()
        for batch in self._batches():
            while batch:
                self._seal(batch[0])
                batch.popleft()
            self._files.write()
        self._tell_losses()
        self._files.write()
        self._files.sync()

    def _seal(self, row: DecisionRow | SnapshotRow) -> None:
        try:
            content = orjson.dumps(row)
        except orjson.JSONEncodeError:
            self._drop()
            return
        self._files.add("decision" if isinstance(row, DecisionRow) else "snapshot", content)

    def _tell_losses(self) -> None:
        # In this order: what is lost from here on comes after `now_s`, and is told next time.
        now_s, lost = time.time(), self.lost
        if lost > self._in_gaps:
            gap = GapRow(lost - self._in_gaps, self._gap_since_s, now_s)
            self._files.add("gap", orjson.dumps(gap))
            self._in_gaps = lost
        self._gap_since_s = now_s

    def _close(self, whole: bool) -> None:
        """Where all was written, so is the end, and it is anchored."""
        try:
            if whole:
                self._files.add("end", orjson.dumps({"time_s": time.time()}))
                self._files.write()
                self._files.sync()
                anchor(self._trail, [self.head()])
            else:
                self._drop(self._files.unwritten)
        finally:
            self._files.close()
