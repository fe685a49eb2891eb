"""Records that are written by a thread of their own, so that no request waits for a disk."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.ledger")

FLUSH_S = 0.2
"""How often what was appended is written."""
CLOSE_S = 10.0
"""How long the end waits for a disk that does not answer."""
REMIND_S = 60.0
"""After which losses are logged once more."""
AT_ONCE = 1000
"""Records in a batch."""

Record = TypeVar("Record")


class BackgroundWriter(ABC, Generic[Record]):
    """A bounded queue and the thread that empties it, in order.

    What cannot be written now, for whatever reason, is kept and tried again. What there is no room
    for, what never can be written and what is left at the end is counted in `lost`.
    """

    def __init__(self, name: str, capacity: int) -> None:
        """`name`: of the thread, and in the log."""
        self._name = name
        self._capacity = capacity
        self._queue: deque[Record] = deque()
        self._batch: deque[Record] = deque()
        """Taken from the queue and not written yet."""
        self._closed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Each counted by one thread alone.
        self._refused = 0
        self._dropped = 0
        self._troubled = False
        self._told = 0
        """Of the losses."""
        self._told_s = -REMIND_S

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is queued, then stops. What is appended from here on is lost."""
        self._closed = True
        self._stopping.set()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.error("%s: %d records were not written in time", self._name, self.waiting)

    @property
    def lost(self) -> int:
        """Records since the start that will never be written."""
        return self._refused + self._dropped

    @property
    def waiting(self) -> int:
        """Records that are not written yet."""
        return len(self._queue) + len(self._batch)

    def append(self, record: Record) -> bool:
        """By one thread. Never blocks, and wakes no other thread: that would cost a request more
        than the record. False: it is lost, for lack of room or of a writer."""
        if self._closed or self.waiting >= self._capacity:
            self._refused += 1
            return False
        self._queue.append(record)
        return True

    @abstractmethod
    def _flush(self) -> None:
        """Writes all of `_batches()`. What it raises is logged, and it is called again."""

    @abstractmethod
    def _close(self, whole: bool) -> None:
        """After the last flush. `whole`: it went well."""

    def _batches(self) -> Iterator[deque[Record]]:
        """What is queued, by batches. Where the caller fails, what it left in a batch comes first
        the next time."""
        while self.waiting:
            if not self._batch:
                count = min(len(self._queue), AT_ONCE)
                self._batch.extend(self._queue.popleft() for _ in range(count))
            yield self._batch
            self._batch.clear()

    def _drop(self, records: int = 1) -> None:
        """That can never be written. By the thread alone, like all below."""
        self._dropped += records

    def _run(self) -> None:
        whole = False
        try:
            while not self._stopping.wait(FLUSH_S):
                self._attempt()
            whole = self._attempt()
        finally:
            # Also where the thread dies of something that is no Exception.
            self._closed = True
            self._end(whole)

    def _attempt(self) -> bool:
        trouble = ""
        try:
            self._flush()
        except Exception as error:
            # Whatever it was: the records depend on this thread going on.
            trouble = without_text(error)
        self._tell(trouble)
        return not trouble

    def _end(self, whole: bool) -> None:
        try:
            self._close(whole)
        except Exception as error:
            whole = False
            log.error("%s cannot be closed: %s", self._name, without_text(error))
        self._drop(self.waiting)
        if self.lost or not whole:
            log.error("%s has ended; %d records are lost", self._name, self.lost)

    def _tell(self, trouble: str) -> None:
        """Logs what begins and what is over, and now and then what goes on."""
        now_s = time.monotonic()
        due = now_s - self._told_s >= REMIND_S
        if trouble and (due or not self._troubled):
            log.error(
                "%s cannot be written; %d records wait, %d are lost: %s",
                *(self._name, self.waiting, self.lost, trouble),
            )
        elif self._troubled and not trouble:
            log.warning("%s is written again; %d records are lost", self._name, self.lost)
        elif self.lost > self._told and due:
            log.error("%s: %d records are lost", self._name, self.lost)
        else:
            return
        self._troubled = bool(trouble)
        self._told, self._told_s = self.lost, now_s
