"""What happens between two ticks, compiled: requests arrive, are decided, wait, are read, answered.

A decision is made of what `decide()` has said of each candidate (`choice`). Requests that cannot go
wait as in the gateway (`queue`), those that go run as in vLLM (`replica`), and what they come to is
counted (`service`).
"""

from orchestrator.simulate.kernel.choice import NEVER, NO_CAPACITY, SATURATED
from orchestrator.simulate.kernel.loop import (
    DONE,
    FULL,
    SPEED_UNKNOWN,
    UNDECIDED,
    advance,
    go_on,
    look_through,
    lose,
)
from orchestrator.simulate.kernel.queue import waiting_ages

__all__ = [
    "DONE",
    "FULL",
    "NEVER",
    "NO_CAPACITY",
    "SATURATED",
    "SPEED_UNKNOWN",
    "UNDECIDED",
    "advance",
    "go_on",
    "look_through",
    "lose",
    "waiting_ages",
]
