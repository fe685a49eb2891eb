"""Whether the audit trail is what was written: nothing altered, missing, or cut off."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from orchestrator.ledger.audit_anchors import FILE, heads_in, heads_of
from orchestrator.ledger.audit_chain import Walk, kind_of
from orchestrator.ledger.audit_files import digest, files, gateways, opened

MOST_PER_FILE = 20
"""Problems that are told of one file."""


@dataclass(frozen=True, slots=True)
class Problem:
    path: Path
    line: int
    message: str
    is_warning: bool = False
    """What a crash or a full disk leaves behind, as opposed to what somebody did."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(slots=True)
class ChainReport:
    """What one chain holds. Times are those of decisions, in seconds since the epoch."""

    gateway_id: str
    files: int = 0
    rows: int = 0
    """Every row: decisions, snapshots and those that the chain itself needs."""
    decisions: int = 0
    first_s: float | None = None
    last_s: float | None = None
    anchored_seq: int = 0
    """Up to this row, cutting off the tail would be seen."""
    ended: bool = False
    """Not so while a gateway writes, nor after one that was killed: up to a flush may lack."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class TrailReport:
    chains: list[ChainReport]
    anchor_problems: list[Problem]

    @property
    def problems(self) -> list[Problem]:
        return [*self.anchor_problems, *(p for c in self.chains for p in c.problems)]

    @property
    def is_whole(self) -> bool:
        return all(p.is_warning for p in self.problems)


def verify(trail: Path) -> list[Problem]:
    """Everything that is wrong with the trail. Raises OSError when it cannot be read."""
    return inspect(trail).problems


def inspect(trail: Path, read: Callable[[Path], None] = lambda path: None) -> TrailReport:
    """Verifies all chains against themselves and their anchors; calls `read` after each file.

    Raises OSError.
    """
    # A chain may grow meanwhile, but never ends before what was noted of it before it was read.
    anchors = trail / FILE
    until = anchors.stat().st_size if anchors.exists() else 0
    noted, problems = _inspect_anchors(trail)
    chains = [_Inspection(trail, g, until).run(read) for g in gateways(trail)]
    if all(p.is_warning for p in problems):
        for chain in chains:
            known = chain.gateway_id in noted or any(heads_of(trail, chain.gateway_id))
            if chain.files and not known:
                message = f"knows nothing of {chain.gateway_id}; put the file back from a copy"
                problems.append(Problem(anchors, 1, message))
    for gateway_id in sorted(noted - {c.gateway_id for c in chains}):
        message = "this chain was anchored and is gone; put the directory back from a copy"
        problems.append(Problem(trail / gateway_id, 1, message))
    return TrailReport(chains, problems)


def _inspect_anchors(trail: Path) -> tuple[set[str], list[Problem]]:
    """The chains that have anchors, and what is wrong with the anchors themselves."""
    path = trail / FILE
    noted: set[str] = set()
    problems: list[Problem] = []
    if not path.exists():
        if any(files(trail / g) for g in gateways(trail)):
            message = "is missing, so no tail can be trusted; put it back from a copy"
            problems.append(Problem(path, 1, message))
        return noted, problems
    walk = Walk()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                problems.append(_torn(path, number))
                break
            fault = walk.step(line)
            if fault is not None and len(problems) < MOST_PER_FILE:
                problems.append(Problem(path, number, fault))
            noted.update(head.gateway_id for head in heads_in(line))
    return noted, problems


def _torn(path: Path, line: int) -> Problem:
    message = "torn tail: the line is half written; its process was killed, or writes right now"
    return Problem(path, line, message, is_warning=True)


class _Inspection:
    """One chain being read."""

    def __init__(self, trail: Path, gateway_id: str, until: int) -> None:
        self.report = ChainReport(gateway_id)
        self._trail = trail
        self._chain = trail / gateway_id
        self._walk = Walk()
        self._anchors = heads_of(trail, gateway_id, until)
        self._anchor = next(self._anchors, None)
        self._place = (self._chain, 1)
        self._decisions: tuple[bytes, bytes] | None = None
        """The first and the last."""

    def run(self, read: Callable[[Path], None]) -> ChainReport:
        found = files(self._chain)
        for before, path in zip([None, *found], found, strict=False):
            try:
                self._file(path, before, is_last=path is found[-1])
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self._say(f"cannot be decompressed ({error}); put it back from a copy", (path, 1))
                self._walk = Walk(None, None)
            self.report.files += 1
            read(path)
        self._check_end()
        if self._decisions is not None:
            self.report.first_s, self.report.last_s = map(_time_s, self._decisions)
        return self.report

    def _file(self, path: Path, before: Path | None, is_last: bool) -> None:
        told = len(self.report.problems)
        self._place = (path, 1)
        line = b""
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                self._place = (path, number)
                if is_last and not line.endswith(b"\n"):
                    break
                if self._line(line) and number == 1:
                    self._check_first(line, path, before)
                if len(self.report.problems) >= told + MOST_PER_FILE:
                    self._say("the rest of this file was not checked; there are too many problems")
                    self._walk = Walk(None, None)
                    return
        if is_last and not line.endswith(b"\n"):
            self.report.problems.append(_torn(*self._place))

    def _line(self, line: bytes) -> bool:
        """Whether the line is whole and in its place."""
        fault = self._walk.step(line)
        self.report.rows += 1
        if fault is not None:
            self._say(fault)
            return False
        self._check_anchors()
        kind = kind_of(line)
        if kind == "decision":
            self.report.decisions += 1
            self._decisions = (self._decisions[0] if self._decisions else line, line)
        elif kind == "gap":
            message = f"{orjson.loads(line).get('lost')} rows were lost: the disk took none"
            self._say(message, is_warning=True)
        self.report.ended = kind == "end"
        return True

    def _check_anchors(self) -> None:
        seq = self._walk.seq
        assert seq is not None
        while self._anchor is not None and self._anchor.seq <= seq:
            if self._anchor.seq == seq and self._anchor.hash.encode() != self._walk.hash:
                self._say(f"row {seq} is not the one that was anchored; put back the chain")
            self._next_anchor()

    def _check_end(self) -> None:
        """The walk ended at what the files hold; the anchors know what was there."""
        while self._anchor is not None:
            if self._anchor.seq > (self._walk.seq or 0):
                self._say(
                    f"the chain ends before row {self._anchor.seq}, which was anchored; "
                    "put back what was cut off"
                )
                return
            self._next_anchor()
        if self.report.ended and self.report.anchored_seq != self._walk.seq:
            noted = heads_of(self._trail, self.report.gateway_id)
            if all(head.seq != self._walk.seq for head in noted):
                self._say("the end is not anchored; anchors may have been cut off", is_warning=True)

    def _next_anchor(self) -> None:
        if self._anchor is not None:
            self.report.anchored_seq = self._anchor.seq
        self._anchor = next(self._anchors, None)

    def _check_first(self, line: bytes, path: Path, before: Path | None) -> None:
        """A file says which it is; a compressed one is vouched for by the one after it."""
        try:
            said = orjson.loads(line)
            is_this = said["kind"] == "file" and said["gateway_id"] == self._chain.name
            is_this = is_this and said["number"] == int(path.name.partition(".")[0])
            compressed = said["gzip"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            is_this, compressed = False, None
        if not is_this:
            self._say("the file does not belong here; put the right one back from a copy")
        if compressed and before and before.suffix == ".gz" and digest(before) != compressed:
            message = "the compressed file was altered; put it back from a copy"
            self._say(message, (before, 1))

    def _say(
        self, message: str, place: tuple[Path, int] | None = None, is_warning: bool = False
    ) -> None:
        self.report.problems.append(Problem(*(place or self._place), message, is_warning))


def _time_s(decision: bytes) -> float | None:
    try:
        return float(orjson.loads(decision)["time_s"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
