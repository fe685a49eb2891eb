"""The time that one request may take to read."""

import math
import time
from collections.abc import Callable


class OutOfTime(Exception):
    """The budget is spent. It says nothing of the content."""


class Deadline:
    """`check` is called between steps that are short whatever the content is."""

    def __init__(self, clock: Callable[[], float], budget_s: float) -> None:
        self._clock = clock
        self._end_s = clock() + budget_s
        # No thread gets more of a processor than the time that passes, which costs a tenth to ask.
        by_thread = clock is time.thread_time
        self._surely_until_s = time.perf_counter() + budget_s if by_thread else -math.inf

    def check(self) -> None:
        """Raises OutOfTime once the budget is spent."""
        if time.perf_counter() < self._surely_until_s:
            return
        if self._clock() > self._end_s:
            raise OutOfTime
