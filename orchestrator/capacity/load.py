"""What arrives, by workload."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """Of one workload, since the last tick."""

    requests: int = 0
    """That arrived, whether they were served or not."""
    prompt_tokens: int = 0
    answered: int = 0
    """Requests whose answer ended."""
    output_tokens: int = 0
    """Of these."""
