"""Reading the audit trail. Reading checks nothing: see `audit_verify`."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from orchestrator.ledger.audit import KINDS, DecisionRow, Row, SnapshotRow
from orchestrator.ledger.audit_chain import kind_of
from orchestrator.ledger.audit_files import files, gateways, opened


class AuditError(Exception):
    """A row that cannot be read; the message says where it stands."""


def rows(trail: Path, *gateway_ids: str) -> Iterator[Row]:
    """Every row of these chains, or of all, chain by chain. Raises AuditError."""
    for gateway_id in gateway_ids or gateways(trail):
        for path, number, line in _lines(trail / gateway_id):
            kind = kind_of(line)
            if kind in KINDS:
                yield _row(kind, line, path, number)


@dataclass(frozen=True, slots=True)
class Found:
    gateway_id: str
    """Whose decision it was."""
    decision: DecisionRow
    snapshot: SnapshotRow | None
    """That it was made on; None when its row was lost."""


def find(trail: Path, request_id: str) -> list[Found]:
    """The decisions for a request, by time. Raises AuditError."""
    found: list[Found] = []
    needle = b'"request_id":' + orjson.dumps(request_id)
    for gateway_id in gateways(trail):
        snapshot: tuple[Path, int, bytes] | None = None
        for path, number, line in _lines(trail / gateway_id):
            kind = kind_of(line)
            if kind == "snapshot":
                snapshot = path, number, line
            if kind != "decision" or needle not in line:
                continue
            decision = _row(kind, line, path, number)
            assert isinstance(decision, DecisionRow)
            if decision.request_id != request_id:
                continue
            made_on = _row("snapshot", snapshot[2], *snapshot[:2]) if snapshot else None
            assert made_on is None or isinstance(made_on, SnapshotRow)
            if made_on and made_on.snapshot_version != decision.snapshot_version:
                made_on = None
            found.append(Found(gateway_id, decision, made_on))
    return sorted(found, key=lambda f: (f.decision.time_s, f.decision.attempt))


def _lines(chain: Path) -> Iterator[tuple[Path, int, bytes]]:
    """Whole lines with their place; a torn one at the end is left out."""
    for path in files(chain):
        number = 0
        try:
            with opened(path) as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        yield path, number, line
        except (OSError, EOFError, zlib.error) as error:
            raise AuditError(f"{path}:{number + 1}: cannot be read: {error}") from None


def _row(kind: str, line: bytes, path: Path, number: int) -> Row:
    try:
        content = orjson.loads(line)
        for name in ("hash", "seq", "prev", "kind"):
            del content[name]
        return KINDS[kind](**content)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise AuditError(f"{path}:{number}: not a {kind} row; see 'audit verify'") from None
