"""Ends of chains, noted outside of them: what shows that a tail was cut off or a chain rewritten.

`anchors.jsonl` is a chain too, one line per call, to which every process of the stack may append.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from orchestrator.ledger.audit_chain import START, seal

FILE = "anchors.jsonl"

_LONGEST_LINE = 1 << 20
_CLAIM = re.compile(rb'\{"hash":"([0-9a-f]{64})","seq":(\d{1,18}),')


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chain that is safe on disk; `seq` is 0 before the first."""

    gateway_id: str
    seq: int
    hash: str
    """64 hex digits."""


def anchor(trail: Path, heads: Sequence[Head]) -> None:
    """Appends the heads, unless the last line says just the same. Blocks on the disk.

    Raises OSError.
    """
    if not heads:
        return
    trail.mkdir(parents=True, exist_ok=True)
    fd = os.open(trail / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        last = _last_line(fd)
        claim = _CLAIM.match(last)
        # A last line that was tampered with stays as it is, for `verify` to find.
        seq, prev = (int(claim[2]), claim[1]) if claim else (0, START)
        content = orjson.dumps({"heads": heads, "time_s": time.time()})
        if content[1 : content.index(b'"time_s"')] in last:
            return
        line, _ = seal(seq + 1, prev, "anchor", content)
        if os.write(fd, line) < len(line):
            raise OSError(f"{trail / FILE}: an anchor was written in part")
        os.fsync(fd)
    finally:
        os.close(fd)


def _last_line(fd: int) -> bytes:
    """The last whole line; what a crash left behind it is taken away."""
    size = os.fstat(fd).st_size
    start = max(0, size - _LONGEST_LINE)
    tail = os.pread(fd, size - start, start)
    end = tail.rfind(b"\n") + 1
    if end < len(tail):
        os.ftruncate(fd, start + end)
    return tail[tail.rfind(b"\n", 0, max(0, end - 1)) + 1 : end]


def heads_in(line: bytes) -> list[Head]:
    """Of a line of anchors; none of one that was tampered with."""
    try:
        return [Head(h["gateway_id"], h["seq"], h["hash"]) for h in orjson.loads(line)["heads"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []


def heads_of(trail: Path, gateway_id: str, until: int | None = None) -> Iterator[Head]:
    """What was noted of one chain, in the order of its rows, in all the file or its first bytes.

    A head may be noted after a later one, for the notes come from several processes; such a head
    says nothing new and is left out.
    """
    seq = -1
    needle = f'"gateway_id":"{gateway_id}"'.encode()
    try:
        with (trail / FILE).open("rb") as file:
            for line in file:
                if until is not None:
                    until -= len(line)
                    if until < 0:
                        return
                if needle not in line:
                    continue
                for head in heads_in(line):
                    if head.gateway_id == gateway_id and head.seq >= seq:
                        seq = head.seq
                        yield head
    except FileNotFoundError:
        return
