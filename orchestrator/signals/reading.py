"""What a source said, and when. A source that is lost says nothing: that is not zero."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    value: T
    at_s: float
    """When the source said so, in seconds since the epoch by the reader's clock."""

    def age_s(self, now_s: float) -> float:
        """At least 0, also where the clock was set back."""
        return max(0.0, now_s - self.at_s)


def fresh(reading: Reading[T] | None, max_age_s: float, now_s: float) -> T | None:
    """What it says; None where nothing was heard for so long, or ever."""
    if reading is None or reading.age_s(now_s) > max_age_s:
        return None
    return reading.value
