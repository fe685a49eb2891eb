"""One line of JSON for each request: who asked for what, where it went, what it took. No content.

All gateways of a node append to one file. Whoever finds it full moves it aside, under a lock that
the kernel takes back from a gateway that dies.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from orchestrator.ledger.writer import BackgroundWriter


@dataclass(slots=True)
class AccessEntry:
    """A request as it ended. What was not known by then is None."""

    time_s: float
    """When it arrived, in seconds since the epoch."""
    gateway_id: str
    request_id: str
    trace_id: str | None
    endpoint: str
    """A path of the API, parameters unfilled."""
    status: int
    """499 for a client that left before its answer was whole."""
    code: str | None
    """Of an answer that is an error, or of the event that ended its stream."""
    duration_s: float
    caller_id: str | None = None
    workload: str | None = None
    model: str | None = None
    """`unknown` for a name that is not configured."""
    stream: bool | None = None
    data_class: str | None = None
    policy_version: str | None = None
    snapshot_version: int | None = None
    """From here to `outcome`: of the attempt that gave the answer, else of the last one."""
    zone: str | None = None
    pool: str | None = None
    variant: str | None = None
    outcome: str | None = None
    attempts: int = 0
    queued_s: float = 0.0
    """How long it waited for places, in all."""
    ttft_s: float | None = None
    prompt_tokens: int = 0
    """Of all attempts, like the other tokens."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    usage_source: str | None = None
    """`counted` where the gateway counted the tokens of an attempt, since its engine gave no usage;
    else `engine`, or `none` where nothing reached an endpoint."""


class AccessLog(BackgroundWriter[AccessEntry]):
    """Appends to the file, and moves it aside when it is full."""

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int = 64 * 1024 * 1024,
        files: int = 5,
        capacity: int = 100_000,
    ) -> None:
        """`files`: how many there are at most, the one that is written among them."""
        super().__init__("access-log", capacity)
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._files = files

    def _flush(self) -> None:
        for batch in self._batches():
            self._write(b"".join(self._lines(batch)))

    def _close(self, whole: bool) -> None:
        """Nothing is kept open."""

    def _lines(self, batch: deque[AccessEntry]) -> Iterator[bytes]:
        """Of what can be a line; the rest is taken out of the batch."""
        for _ in range(len(batch)):
            entry = batch.popleft()
            try:
                line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
            except orjson.JSONEncodeError:
                self._drop()
                continue
            batch.append(entry)
            yield line

    def _write(self, lines: bytes) -> None:
        """Raises OSError, and has written nothing then."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._path.exists() and self._path.stat().st_size >= self._rotate_bytes:
                self._rotate()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    written = 0
                    while written < len(lines):
                        written += os.write(descriptor, lines[written:])
                except OSError:
                    os.ftruncate(descriptor, size)  # half a line would spoil the next one
                    raise
            finally:
                os.close(descriptor)

    def _rotate(self) -> None:
        def aside(number: int) -> Path:
            return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

        for number in reversed(range(self._files - 1)):
            if aside(number).exists():
                aside(number).rename(aside(number + 1))
        if self._files == 1:
            self._path.unlink()
