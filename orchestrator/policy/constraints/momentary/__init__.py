"""Constraints of the moment: `feasible(question)` is true for the candidates that pass, or None
when all do; `sentence(question, position)` says of one that does not why."""

from orchestrator.policy.constraints.momentary import (
    budget,
    burst,
    context_length,
    excluded,
    price,
    ready,
    saturated,
)

MOMENTARY = (
    ("context_length", context_length),
    ("price", price),
    ("budget", budget),
    ("burst", burst),
    ("not_ready", ready),
    ("excluded", excluded),
    ("saturated", saturated),
)
"""The last one says of what would do otherwise that it is full."""
