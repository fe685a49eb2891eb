"""The format of traces, read as a stream of column blocks."""

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
BLOCK_ROWS = 65_536


class TraceError(Exception):
    """The trace cannot be read; the message names file, line and the mend."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Consecutive requests of a trace, a column each."""

    arrival_s: NDArray[np.float64]
    """Seconds since the start of the trace, ascending."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    workload: tuple[str, ...] | None = None
    """Names, where the trace has the column."""
    hash_ids: tuple[str, ...] | None = None
    """Ids of each prompt's blocks in order, separated by spaces, where the trace has the column."""

    def __len__(self) -> int:
        return len(self.arrival_s)


def read_blocks(
    path: Path, workloads: frozenset[str] | None = None, rows: int = BLOCK_ROWS
) -> Iterator[Requests]:
    """Blocks of at most `rows` requests of a CSV or CSV.gz; memory does not grow with the trace.

    With `workloads`, a workload column may name only these. Raises TraceError.
    """
    try:
        with open_text(path) as file:
            yield from _blocks(path, file, workloads, rows)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path}:1: cannot be read: {error}; give a CSV or CSV.gz file") from None


def open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _blocks(
    path: Path, file: TextIO, workloads: frozenset[str] | None, rows: int
) -> Iterator[Requests]:
    reader = csv.reader(file)
    header = next(reader, [])
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        raise TraceError(
            f"{path}:1: no column {', '.join(missing)}; the header must name {', '.join(COLUMNS)}"
        )
    before_s, empty = 0.0, True
    while True:
        first_line = reader.line_num + 1
        numbered = list(itertools.islice(reader, rows))
        if not numbered:
            break
        block = _columns(header, [row for row in numbered if row])
        if block is None or not _holds(block, before_s, workloads):
            raise _first_fault(path, header, numbered, first_line, before_s, workloads)
        if len(block):
            before_s, empty = float(block.arrival_s[-1]), False
            yield block
    if empty:
        raise TraceError(f"{path}:2: no requests; write at least one row")


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Requests | None:
    """None where a value is missing or is no number."""
    try:
        values = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
        arrival_s, prompt, output = (values.get(c, ()) for c in COLUMNS)
        return Requests(
            np.array(list(map(float, arrival_s)), dtype=np.float64),
            np.array(list(map(int, prompt)), dtype=np.int64),
            np.array(list(map(int, output)), dtype=np.int64),
            values.get("workload"),
            values.get("hash_ids"),
        )
    except (ValueError, OverflowError):
        return None


def _holds(block: Requests, before_s: float, workloads: frozenset[str] | None) -> bool:
    return (
        bool(np.isfinite(block.arrival_s).all())
        and bool((np.diff(block.arrival_s, prepend=before_s) >= 0).all())
        and bool((block.prompt_tokens >= 0).all() and (block.output_tokens >= 0).all())
        and (workloads is None or block.workload is None or workloads.issuperset(block.workload))
    )


def _first_fault(
    path: Path,
    header: Sequence[str],
    numbered: Sequence[Sequence[str]],
    first_line: int,
    before_s: float,
    workloads: frozenset[str] | None,
) -> TraceError:
    for line, row in enumerate(numbered, first_line):
        if not row:
            continue
        where, one = f"{path}:{line}", _columns(header, [row])
        if one is None:
            return TraceError(
                f"{where}: write arrival_s as a number and both token counts as whole numbers, "
                "in as many columns as the header has"
            )
        at_s = float(one.arrival_s[0])
        if not np.isfinite(at_s) or at_s < 0:
            return TraceError(f"{where}: arrival_s must be a number from 0 up")
        if at_s < before_s:
            return TraceError(f"{where}: arrivals must not go back in time; sort by arrival_s")
        if min(one.prompt_tokens[0], one.output_tokens[0]) < 0:
            return TraceError(f"{where}: token counts must be 0 or more")
        if workloads is not None and one.workload and one.workload[0] not in workloads:
            known = ", ".join(sorted(workloads))
            return TraceError(f"{where}: no workload {one.workload[0]!r}; name one of {known}")
        before_s = at_s
    raise AssertionError("a block was refused without a fault")
