"""Public traces of other formats, read line by line into rows of ours.

Requests must be in order of time. Times count from the first request of the file.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from orchestrator.traces.requests import TraceError, open_text

Row = tuple[float, int, int, str]
"""Seconds on the source's own clock, then since the start; prompt and output tokens; hash_ids."""


def azure(path: Path, file: TextIO) -> Iterator[tuple[int, Row]]:
    """Azure LLM inference 2023 and 2024; times without a zone are UTC."""
    columns = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    for line, (time, prompt, output) in _csv(path, file, columns):
        at = datetime.fromisoformat(time)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        yield line, (at.timestamp(), int(prompt), int(output), "")


def burstgpt(path: Path, file: TextIO) -> Iterator[tuple[int, Row]]:
    """BurstGPT; requests that failed (no response tokens) are left out."""
    columns = ("Timestamp", "Request tokens", "Response tokens")
    for line, (time, prompt, output) in _csv(path, file, columns):
        if int(output) != 0:
            yield line, (float(time), int(prompt), int(output), "")


def mooncake(path: Path, file: TextIO) -> Iterator[tuple[int, Row]]:
    """Mooncake, JSON lines with times in milliseconds."""
    for line, text in enumerate(file, 1):
        if text.strip():
            entry = json.loads(text)
            yield (
                line,
                (
                    float(entry["timestamp"]) / 1000,
                    int(entry["input_length"]),
                    int(entry["output_length"]),
                    " ".join(str(int(block)) for block in entry.get("hash_ids", ())),
                ),
            )


FORMATS: dict[str, Callable[[Path, TextIO], Iterator[tuple[int, Row]]]] = {
    "azure": azure,
    "burstgpt": burstgpt,
    "mooncake": mooncake,
}


def rows(name: str, path: Path) -> Iterator[Row]:
    """The requests of a file of the named format. Raises TraceError."""
    line, start_s, before_s = 0, None, 0.0
    try:
        with open_text(path) as file:
            for line, (at_s, prompt, output, hash_ids) in FORMATS[name](path, file):
                start_s = at_s if start_s is None else start_s
                arrival_s = at_s - start_s
                if not before_s <= arrival_s < float("inf"):
                    raise TraceError(f"{path}:{line}: goes back in time; sort the file by time")
                if min(prompt, output) < 0:
                    raise TraceError(f"{path}:{line}: token counts must be 0 or more")
                before_s = arrival_s
                yield arrival_s, prompt, output, hash_ids
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error):
        raise TraceError(
            f"{path}:{line + 1}: after line {line} comes no request of the {name} format; "
            "mend or remove it"
        ) from None
    except (OSError, EOFError) as error:
        raise TraceError(f"{path}:1: cannot be read: {error}") from None
    if start_s is None:
        raise TraceError(f"{path}:1: no requests")


def _csv(path: Path, file: TextIO, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    reader = csv.DictReader(file)
    missing = [c for c in columns if c not in (reader.fieldnames or ())]
    if missing:
        raise TraceError(f"{path}:1: no column {', '.join(missing)}")
    for row in reader:
        yield reader.line_num, tuple(row[c] for c in columns)
