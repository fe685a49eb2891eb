"""A request on its way, and each attempt to have it answered."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.gateway.answers import Answer
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.rules import Rules
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.usage import NOTHING, Usage
from orchestrator.policy.grant import Grant

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Call:
    """A request on its way, with what has become of it."""

    request_id: str
    caller: Caller
    rules: Rules
    """By which it was read."""
    labels: Labels
    session_id: str
    request: InferenceRequest
    send: Send
    started_s: float
    """Of the monotonic clock, like every time here."""
    status: int = 0
    """The status that was sent to the client, 0 before that."""
    zone: str = ""
    pool: str = ""
    attempts: int = 0
    answer_is_kept: bool = False
    """Its conversation is above the workload's own class."""
    avoided: Mapping[str, str] = field(default_factory=dict)
    """Endpoints that it does not go to, with the reason: those that have no room for a request that
    can wait."""
    endpoint: str = ""
    """That it was sent to last."""


@dataclass(slots=True, eq=False)
class Attempt:
    grant: Grant
    number: int
    started_s: float
    said: Answer
    """What was passed on, where the answer is kept."""
    first_token_s: float | None = None
    usage: Usage | None = None
    """By the engine."""
    counted: Usage = NOTHING
    """By what was passed on, for an engine that tells none."""
    outcome: str = "cancelled"

    @property
    def endpoint(self) -> str:
        return self.grant.candidate.endpoint
