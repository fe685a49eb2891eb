"""Data classes: how sensitive the content of a request is."""

from enum import IntEnum
from typing import Self


class DataClass(IntEnum):
    """An ordered lattice. A label only ever rises: combine labels with `max`."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @property
    def label(self) -> str:
        """The name used in configuration, headers, metrics and logs."""
        return _LABELS[self]

    @classmethod
    def parse(cls, label: str) -> Self:
        """The class with this label, in any letter case.

        Raises ValueError for a label that is none of the four.
        """
        try:
            return cls[label.strip().upper()]
        except KeyError:
            known = ", ".join(c.label for c in cls)
            raise ValueError(f"unknown data class {label!r}; use one of {known}") from None


_LABELS = tuple(c.name.lower() for c in DataClass)
