"""What was done and why: an append-only log of bounded size, kept whatever becomes of the disk."""

import asyncio
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from orchestrator.policy.snapshot import Frozen

log = logging.getLogger("orchestrator.controller")

MAX_FILE_BYTES = 4 * 1024 * 1024
OLD_FILES = 3
KEPT = 5_000
"""Events in memory: those that are shown, and those that wait for a disk."""
GOODBYE_S = 2


class EventKind(StrEnum):
    ADOPT = "adopt"
    """Replicas were found that nobody remembers ordering."""
    BURST = "burst"
    CLOCK = "clock"
    """The machine's was set."""
    CLUSTER = "cluster"
    """One is not heard of any more, or again."""
    GIVE_UP = "give-up"
    HOLD = "hold"
    """Somebody's word on a pool or a burst, and its end."""
    LEADER = "leader"
    PRICE = "price"
    """One that is not believed, or cannot be had."""
    RELEASE = "release"
    RULES = "rules"
    SCALE = "scale"
    STATE = "state"
    """What the controller must not forget could not be written, or can be again."""
    ZOMBIE = "zombie"
    """Something is paid for and does nothing, or is given back for that."""


class Event(Frozen):
    id: int
    """Rises from event to event, over restarts too."""
    at_s: float
    kind: EventKind
    subject: str
    """An endpoint, a pool, a workload, a cluster or a feed."""
    what: str
    reason: str = ""


class EventLog:
    """The file is `path`, with older ones beside it as `path.1` and so on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent: deque[Event] = deque(_read(path), maxlen=KEPT)
        self._unwritten: deque[Event] = deque(maxlen=KEPT)
        self._torn = _is_torn(path)
        self._writing: asyncio.Task[None] | None = None
        self.failure = ""
        """Why the disk does not take them; empty while it does."""
        self.lost = 0
        """Events that are in no file, and never will be."""
        self.counts: Counter[str] = Counter()
        """By kind, since the start of this process."""

    def record(
        self, kind: EventKind, subject: str, what: str, reason: str = "", *, now_s: float
    ) -> None:
        last = self._recent[-1].id if self._recent else 0
        event = Event(
            id=max(last + 1, int(now_s * 1000)),
            at_s=now_s,
            kind=kind,
            subject=subject,
            what=what,
            reason=reason,
        )
        log.info("%s: %s%s", subject, what, f": {reason}" if reason else "")
        self._recent.append(event)
        self.counts[kind.value] += 1
        self.lost += len(self._unwritten) == KEPT
        self._unwritten.append(event)

    def after(self, event_id: int) -> list[Event]:
        """Those that came after one, oldest first."""
        return [event for event in self._recent if event.id > event_id]

    def flush(self) -> None:
        """Writes beside the caller, who never waits for a disk. What cannot be written is tried
        again with the next call."""
        if self._unwritten and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._flush())

    async def close(self) -> None:
        """Writes what there is, if the disk takes it in time."""
        self.flush()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=GOODBYE_S)

    async def _flush(self) -> None:
        batch = list(self._unwritten)
        try:
            await asyncio.to_thread(_append, self._path, batch, self._torn)
        except OSError as error:
            if not self.failure:
                log.warning("events are not written: %s: %s", self._path, error.strerror)
            self.failure = error.strerror or type(error).__name__
            return
        self._torn = False
        written = batch[-1].id
        while self._unwritten and self._unwritten[0].id <= written:
            self._unwritten.popleft()
        if self.failure:
            log.info("events are written again")
        self.failure = ""


def _append(path: Path, events: list[Event], torn: bool) -> None:
    """All of them or none. Raises OSError."""
    if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
        _rotate(path)
    lines = "".join(f"{event.model_dump_json()}\n" for event in events)
    data = ("\n" * torn + lines).encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(file).st_size
        try:
            if os.write(file, data) != len(data):
                raise OSError(None, "the disk took a part only")
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _rotate(path: Path) -> None:
    for number in range(OLD_FILES - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            os.replace(older, path.with_name(f"{path.name}.{number + 1}"))
    os.replace(path, path.with_name(f"{path.name}.1"))


def _is_torn(path: Path) -> bool:
    """Whether its last line was not written to the end."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _read(path: Path) -> Iterator[Event]:
    """What the newest two files hold; lines that are not whole are left out."""
    for file in (path.with_name(f"{path.name}.1"), path):
        try:
            lines = file.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            with suppress(ValidationError, json.JSONDecodeError):
                yield Event.model_validate_json(line)
