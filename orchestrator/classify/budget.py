"""The time that one request may take to read."""

import time
from collections.abc import Callable


class OutOfTime(Exception):
    """The budget is spent. It says nothing of the content."""


class Deadline:
    """`check` is called between steps that are short whatever the content is."""

    def __init__(self, clock: Callable[[], float], budget_s: float) -> None:
        self._clock = clock
        self._end_s = clock() + budget_s

    def check(self) -> None:
        """Raises OutOfTime once the budget is spent."""
        if self._clock() > self._end_s:
            raise OutOfTime


class OwnTime(Deadline):
    """By what the thread itself has had of a processor: on a busy machine an ordinary text stays
    one.

    That clock costs a system call, which most texts do without: it is asked only from half of the
    budget on, by the time that passes, of which a thread cannot have had more.
    """

    def __init__(self, budget_s: float) -> None:
        super().__init__(time.perf_counter, budget_s / 2)
        self._left_s = budget_s / 2

    def check(self) -> None:
        if self._clock() <= self._end_s:
            return
        if self._clock is time.perf_counter:
            self._clock = time.thread_time
            self._end_s = self._clock() + self._left_s
        elif self._clock() > self._end_s:
            raise OutOfTime
