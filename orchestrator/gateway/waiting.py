"""Requests that wait for a replica: woken at every new snapshot, the most important first."""

import asyncio
from heapq import heappop, heappush
from itertools import count


class WaitingRoom:
    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()

    async def wait(self, priority: int, timeout_s: float) -> None:
        """Returns at the next `wake`, or when the time is over."""
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (-priority, next(self._number), turn))
        await asyncio.wait([turn], timeout=timeout_s)
        turn.cancel()

    def wake(self) -> None:
        while self._waiting:
            turn = heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
