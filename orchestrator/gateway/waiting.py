"""Requests that wait for a replica: woken at every new snapshot, the most important first."""

import asyncio


class WaitingRoom:
    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}
        """By when they came, each with its priority."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, priority: int, timeout_s: float) -> None:
        """Returns at the next `wake`, or when the time is over."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = priority
        try:
            await asyncio.wait([turn], timeout=timeout_s)
        finally:
            self._waiting.pop(turn, None)

    def wake(self) -> None:
        # The loop goes on with them in the order in which they are told.
        for turn in sorted(self._waiting, key=lambda turn: -self._waiting[turn]):
            turn.set_result(None)
        self._waiting.clear()
