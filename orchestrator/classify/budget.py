"""The time that one request may take to read."""

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
