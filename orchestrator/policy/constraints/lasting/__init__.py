"""Constraints that no load, price or failure can lift: `check(placement)` gives the sentence of a
refusal, or None."""

from collections.abc import Callable

from orchestrator.policy.constraints.lasting import (
    certification,
    data_class,
    jurisdiction,
    quality,
    rented,
    zone,
)
from orchestrator.policy.constraints.lasting.placement import Placement

__all__ = ["LASTING", "Placement"]

LASTING: tuple[tuple[str, Callable[[Placement], str | None]], ...] = (
    ("zone_not_allowed", zone.check),
    ("data_class", data_class.check),
    ("jurisdiction", jurisdiction.check),
    ("certification", certification.check),
    ("quality", quality.check),
    ("rented", rented.check),
)
