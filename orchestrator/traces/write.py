"""Traces written in our format."""

import gzip
import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from orchestrator.traces.requests import BLOCK_ROWS, COLUMNS, Requests

Row = tuple[float, int, int, str]


def blocks(rows: Iterable[Row], text: str | None, size: int = BLOCK_ROWS) -> Iterator[Requests]:
    """Rows as blocks; `text` names the column of their last value, None leaves it out."""
    remaining = iter(rows)
    while chunk := list(itertools.islice(remaining, size)):
        arrival_s, prompt, output, last = zip(*chunk, strict=True)
        yield Requests(
            np.array(arrival_s, dtype=np.float64),
            np.array(prompt, dtype=np.int64),
            np.array(output, dtype=np.int64),
            last if text == "workload" else None,
            last if text == "hash_ids" else None,
        )


def write_file(path: Path, requests: Iterable[Requests]) -> int:
    """Writes a CSV, or a CSV.gz by its suffix; how many requests it holds. What was there stays
    until the trace is whole. Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with _open(partial, path.suffix == ".gz") as file:
            count = write(file, requests)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return count


def write(file: TextIO, requests: Iterable[Requests]) -> int:
    """How many requests it wrote. The first block says which columns there are."""
    count = 0
    for block in requests:
        extra = {"workload": block.workload, "hash_ids": block.hash_ids}
        texts = {name: values for name, values in extra.items() if values is not None}
        if count == 0:
            file.write(",".join((*COLUMNS, *texts)) + "\n")
        line = ",".join(("%.6f,%d,%d", *("%s" for _ in texts))) + "\n"
        columns = (
            block.arrival_s.tolist(),
            block.prompt_tokens.tolist(),
            block.output_tokens.tolist(),
            *(tuple(map(_quoted, values)) for values in texts.values()),
        )
        file.write("".join(map(line.__mod__, zip(*columns, strict=True))))
        count += len(block)
    return count


def _quoted(text: str) -> str:
    if any(c in text for c in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _open(path: Path, compressed: bool) -> TextIO:
    if compressed:
        return cast(TextIO, gzip.open(path, "wt", compresslevel=3, encoding="utf-8", newline=""))
    return path.open("w", encoding="utf-8", newline="")
