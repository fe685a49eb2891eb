"""The time that a controller goes by."""

import time
from collections.abc import Callable

from orchestrator.controller.lease import clock_s


class SteadyClock:
    """The wall's time at the start and what has passed since: whoever sets the machine's clock
    makes nothing last longer or shorter."""

    def __init__(
        self, wall: Callable[[], float] = time.time, passed: Callable[[], float] = clock_s
    ) -> None:
        self._wall, self._passed = wall, passed
        self._ahead_s = wall() - passed()

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._passed() + self._ahead_s

    def step_s(self) -> float:
        """By how much the machine's clock was set since the start."""
        return self._wall() - self.now_s()
