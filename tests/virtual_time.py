"""An event loop whose time passes only while nothing happens: what waits is woken at once.

Servers and clients of one loop speak over real sockets, and what they time is exact.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

SETTLE_S = 0.0005
"""For bytes on their way between sockets."""

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(SETTLE_S if timeout is not None else None)
        if not ready and timeout is not None:
            self.passed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.passed_s


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
