"""Constraints of the moment: `feasible(question)` is true for the candidates that pass, or None
when all do; `sentence(question, position)` says of one that does not why."""

from orchestrator.policy.constraints.momentary import (
    budget,
    burst,
    context_length,
    excluded,
    price,
    ready,
)

MOMENTARY = (
    ("context_length", context_length),
    ("price", price),
    ("budget", budget),
    ("burst", burst),
    ("not_ready", ready),
    ("excluded", excluded),
)
