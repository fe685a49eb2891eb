"""Constraints of the moment: `feasible(question)` is true for the candidates that pass, or None
when all do; `sentence(question, position)` says of one that does not why."""

from orchestrator.policy.constraints.momentary import (
    budget,
    burst,
    context_length,
    excluded,
    held,
    price,
    ready,
    saturated,
    variant,
)

MOMENTARY = (
    ("context_length", context_length),
    ("variant", variant),
    ("price", price),
    ("budget", budget),
    ("burst", burst),
    ("held", held),
    ("not_ready", ready),
    ("excluded", excluded),
    ("saturated", saturated),
)
"""The last one says of what would do otherwise that it is full."""
