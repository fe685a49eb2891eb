"""Hard constraints, one per module: `check(question)` gives the sentence of a refusal, or None.

`ALL` is their order: what can never change for this request first, what changes by the second
last, so that the reason shown is the most lasting one.
"""

from collections.abc import Callable

from orchestrator.policy.constraints import (
    budget,
    burst,
    context_length,
    data_class,
    excluded,
    price,
    ready,
    zone,
)
from orchestrator.policy.question import Question

Check = Callable[[Question], str | None]

ALL: tuple[tuple[str, Check], ...] = (
    ("zone_not_allowed", zone.check),
    ("data_class", data_class.check),
    ("context_length", context_length.check),
    ("price", price.check),
    ("budget", budget.check),
    ("burst", burst.check),
    ("not_ready", ready.check),
    ("excluded", excluded.check),
)

RESIDENCY = frozenset({"zone_not_allowed", "data_class"})
"""The codes that no change of load, price or health can lift."""
