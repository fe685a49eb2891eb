"""What clients ask for, as the planner sees it."""

from dataclasses import dataclass


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
