"""What clients ask for, as the planner sees it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.policy.catalogue import Catalogue

STEP = 1.25
"""Lengths are rounded to powers of it: what hardly changes is not told anew."""
REMEMBERED = 10_000
"""Requests by which what is usual is known; older ones fade."""


@dataclass(frozen=True, slots=True)
class Load:
    """Of one workload, since the tick before."""

    requests: int = 0
    """That arrived within their limits, whether they were served or shed."""
    prompt_tokens: int = 0
    """Of these, by the length of what was sent."""
    answered: int = 0
    """Requests whose answer ended."""
    output_tokens: int = 0
    """Of these answers."""


class Prompts:
    """How long prompts are, by model."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._models = {name: spec.models for name, spec in catalogue.workloads.items()}
        self._counted: dict[str, tuple[float, float]] = {}
        """Requests and their tokens."""

    def add(self, load: Mapping[str, Load]) -> None:
        for workload, seen in load.items():
            for model in self._models.get(workload, ()) if seen.requests else ():
                requests, tokens = self._counted.get(model, (0.0, 0.0))
                kept = min(1.0, REMEMBERED / (requests + 1))
                self._counted[model] = (
                    requests * kept + seen.requests,
                    tokens * kept + seen.prompt_tokens,
                )

    def means(self) -> dict[str, float]:
        """In tokens, rounded."""
        return {
            model: STEP ** round(math.log(max(tokens / requests, 1.0), STEP))
            for model, (requests, tokens) in self._counted.items()
        }
