"""Requests wait here for endpoints that are full or not there yet, and are told when they may go.

To find that one may go is to take its place, in one step. So nobody is told of room that another
one has taken, and room never goes unnoticed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from orchestrator.gateway.fair_queue import FairQueue, Ticket

Outcome = TypeVar("Outcome")


class Shed(Exception):
    """The queue is full, and this request is the least important of all."""


class Outdated(Exception):
    """What is known of a request does not hold any more; its `renew` finds it anew."""


@dataclass(slots=True, eq=False, kw_only=True)
class Waiter(Ticket, Generic[Outcome]):
    look: "Callable[[Waiter[Outcome]], Outcome | None]"
    """What became of it, if that can be said now: it has taken its place then. Else it has set
    `until_s`, which lies ahead. Raises Outdated."""
    renew: "Callable[[], Awaitable[Waiter[Outcome]]]"
    """Who waits in its place when it is outdated. It may take its time: the place is kept."""
    until_s: float
    """When it is looked at for the last time, on the monotonic clock."""
    outcome: "asyncio.Future[Outcome | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Admission(Generic[Outcome]):
    def __init__(self, limit: int) -> None:
        self.queue: FairQueue[Waiter[Outcome]] = FairQueue(limit)
        self._scheduled = False

    @property
    def busy(self) -> bool:
        """Whether somebody waits, whom nobody may overtake."""
        return len(self.queue) > 0

    async def wait(self, waiter: Waiter[Outcome]) -> Outcome:
        """Its outcome. Raises Shed, and what `look` and `renew` raise. One that is cancelled may
        have its place by then."""
        shed = self.queue.join(waiter)
        if shed is not None and not shed.outcome.done():
            shed.outcome.set_result(None)
        try:
            while True:
                try:
                    found = await self._told(waiter)
                except Outdated:
                    renewed = await waiter.renew()
                    # It may have had to leave meanwhile.
                    if waiter in self.queue:
                        self.queue.replace(waiter, renewed)
                        waiter = renewed
                        continue
                    found = None
                if found is None:
                    raise Shed
                return found
        finally:
            self.queue.leave(waiter)
            self._schedule()

    async def _told(self, waiter: Waiter[Outcome]) -> Outcome | None:
        """Its outcome, None when it is shed. Raises Outdated."""
        self._next()
        while not waiter.outcome.done():
            left_s = waiter.until_s - time.monotonic()
            await asyncio.wait([waiter.outcome], timeout=max(left_s, 0))
            if not waiter.outcome.done() and time.monotonic() >= waiter.until_s:
                found = waiter.look(waiter)
                if found is not None:
                    return found
        return waiter.outcome.result()

    def stir(self, endpoint: str | None = None) -> None:
        """A request ended there; with None: anything may have changed."""
        if len(self.queue):
            self.queue.stir(endpoint)
            self._schedule()

    def _schedule(self) -> None:
        if len(self.queue) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._scheduled_next)

    def _scheduled_next(self) -> None:
        self._scheduled = False
        self._next()

    def _next(self) -> None:
        """Tells the first of those who may go. The others of the loop have their turn before the
        next one."""
        for waiter in self.queue.heads():
            if waiter.outcome.done():  # it is outdated, and being renewed
                self.queue.rest(waiter)
                continue
            try:
                found = waiter.look(waiter)
            except Exception as error:
                waiter.outcome.set_exception(error)
                waiter.outcome.exception()  # it may be gone, and then nobody else asks
                if isinstance(error, Outdated):
                    self.queue.rest(waiter)
                    continue
            else:
                if found is None:
                    self.queue.rest(waiter)
                    continue
                waiter.outcome.set_result(found)
            self.queue.leave(waiter)
            self._schedule()
            return
