"""All clients' connections of one server: how many there may be, for how long, and what they may
leave unread."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.gateway")

KIB = 1024
MIB = 1024 * KIB
LONGEST_FEW = 16


@dataclass(frozen=True)
class ConnectionLimits:
    """Of what clients may take of a server."""

    connections: int = 8192
    """Open at a time. Over it, who has waited longest for a request is closed for a new one: of the
    longest few, who has said nothing before others."""
    head_bytes: int = 32 * KIB
    headers: int = 128
    head_s: float = 10
    """For a request's head, from its first byte; of a new connection from the start."""
    keep_alive_s: float = 75
    """Longer than the usual clients keep an idle connection, so that they close it and not we."""
    linger_s: float = 3
    """For a client to read its refusal, while what it still sends is dropped."""
    unread_bytes: int = 64 * KIB
    """Of answers, that any connection may leave unread before its stream waits for it."""
    lent_unread_bytes: int = MIB
    """The same where the server has this much to lend."""
    all_lent_bytes: int = 256 * MIB
    """Of all connections."""

    @property
    def look_s(self) -> float:
        """From one look at all connections to the next."""
        return min(1, min(self.head_s, self.keep_alive_s, self.linger_s) / 4)


class Member(Protocol):
    def look(self, now_s: float, unread_s: float) -> None:
        """Ends what is overdue. `unread_s`: how long a client may leave an answer unread."""

    def evict(self) -> None:
        """Closes the connection, which has no request, for another."""

    def is_silent(self) -> bool:
        """Whether it has had no request, and none is there that has not been read yet."""


class Connections:
    def __init__(
        self,
        limits: ConnectionLimits,
        unread_s: Callable[[], float],
        refused: Callable[[int], None],
    ) -> None:
        """`unread_s`: how long a client may leave an answer unread. `refused` is told the status
        of what is answered without the application."""
        self.limits = limits
        self.refused = refused
        self._unread_s = unread_s
        self._open: set[Member] = set()
        self._idle: dict[Member, None] = {}
        """Those without a whole request, who has waited longest first."""
        self._lent_bytes = 0
        self._looking: asyncio.TimerHandle | None = None

    def add(self, connection: Member) -> bool:
        """Whether there is room for it."""
        if len(self._open) >= self.limits.connections:
            if not self._idle:
                return False
            # Of a flood many are taken at once, and those before them are not read meanwhile.
            few = list(islice(self._idle, LONGEST_FEW))
            longest = next((c for c in few if c.is_silent()), few[0])
            self.remove(longest)
            longest.evict()
        self._open.add(connection)
        self._idle[connection] = None
        if self._looking is None:
            self._look_later()
        return True

    def remove(self, connection: Member) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def busy(self, connection: Member) -> None:
        self._idle.pop(connection, None)

    def idle(self, connection: Member) -> None:
        if connection in self._open:
            self._idle[connection] = None

    def borrow(self) -> bool:
        """Whether a connection may leave `lent_unread_bytes` unread, until it gives them back."""
        if self._lent_bytes + self.limits.lent_unread_bytes > self.limits.all_lent_bytes:
            return False
        self._lent_bytes += self.limits.lent_unread_bytes
        return True

    def give_back(self) -> None:
        self._lent_bytes -= self.limits.lent_unread_bytes

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(self.limits.look_s, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._open:
            self._look_later()
        now_s, unread_s = time.monotonic(), self._unread_s()
        for connection in tuple(self._open):
            try:
                connection.look(now_s, unread_s)
            except Exception as error:
                # What is wrong with one must not keep the others from being looked at.
                log.error("a connection could not be looked at: %s", without_text(error))
