"""What a source said, and when. A source that is lost says nothing: that is not zero."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    value: T
    at_s: float
    """When the source said so, in seconds since the epoch by the reader's clock."""


def heard(at_s: float | None, max_age_s: float, now_s: float) -> bool:
    """Whether something of that time still counts. What comes from the future does not: since a
    clock was set back, nobody knows how old it is."""
    return at_s is not None and 0 <= now_s - at_s <= max_age_s


def fresh(reading: Reading[T] | None, max_age_s: float, now_s: float) -> T | None:
    """What it says; None where nothing was heard for so long, or ever."""
    if reading is None or not heard(reading.at_s, max_age_s, now_s):
        return None
    return reading.value
