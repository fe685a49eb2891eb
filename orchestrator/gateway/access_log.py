"""One line of JSON for each request: who asked for what, where it went, what it took. No content.

All gateways of a node append to one file. Whoever finds it full moves it aside, under a lock that
the kernel takes back from a gateway that dies.
"""

import fcntl
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

log = logging.getLogger("orchestrator.gateway")

FLUSH_S = 0.5
"""How often what was appended is written."""


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
    """Of the last grant, as all that follows."""
    zone: str | None = None
    pool: str | None = None
    variant: str | None = None
    outcome: str | None = None
    attempts: int = 0
    queued_s: float = 0.0
    ttft_s: float | None = None
    prompt_tokens: int = 0
    """Of all attempts, like the other tokens."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    usage_source: str | None = None
    """`engine`, or `counted` where the engine gave no usage for an attempt."""


class AccessLog:
    """Appends from a thread of its own, in batches. Entries that cannot be written are kept, up to
    `capacity`, and written later; what is over that is counted in `lost`."""

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int = 64 * 1024 * 1024,
        files: int = 5,
        capacity: int = 100_000,
    ) -> None:
        """`files`: how many there are at most, the one that is written among them."""
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._files = files
        self._capacity = capacity
        self._entries: deque[AccessEntry] = deque()
        self._unwritten = b""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is queued, then stops."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def append(self, entry: AccessEntry) -> None:
        """Never blocks, and wakes no thread."""
        if len(self._entries) < self._capacity:
            self._entries.append(entry)
        else:
            self.lost += 1

    def _run(self) -> None:
        stopping = troubled = False
        while not stopping:
            stopping = self._stopping.wait(FLUSH_S)
            try:
                self._flush()
                troubled = False
            except OSError as error:
                if not troubled:
                    log.error("the access log cannot be written: %s", error.strerror)
                troubled = True

    def _flush(self) -> None:
        """Raises OSError; what was not written is kept."""
        while self._unwritten or self._entries:
            if not self._unwritten:
                batch = [self._entries.popleft() for _ in range(min(len(self._entries), 1000))]
                self._unwritten = b"".join(
                    orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in batch
                )
            self._write(self._unwritten)
            self._unwritten = b""

    def _write(self, lines: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
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
            if size + len(lines) >= self._rotate_bytes:
                self._rotate()

    def _rotate(self) -> None:
        def aside(number: int) -> Path:
            return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

        for number in reversed(range(self._files - 1)):
            if aside(number).exists():
                aside(number).rename(aside(number + 1))
        if self._files == 1:
            self._path.unlink()
