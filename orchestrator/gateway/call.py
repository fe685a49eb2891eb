"""A request on its way, and each attempt to have it answered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.answers import Answer
from orchestrator.gateway.asgi import Send
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.rules import Rules
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.usage import NOTHING, Usage
from orchestrator.policy.grant import Grant

if TYPE_CHECKING:
    from orchestrator.gateway.tracing import AttemptTrace, RequestTrace


@dataclass(slots=True)
class Call:
    """A request on its way, with what has become of it."""

    request_id: str
    caller: Caller
    authenticate: Callable[[], Caller]
    """Whose request it is by the credentials of this moment, without waiting for anything. Raises
    ApiError 401, or NoCaller for a line of a batch."""
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
    decisions: int = 0
    variant: str = ""
    """That has begun the answer, and alone may go on with it."""
    charged: float = 0.0
    """The service that its workload was charged for attempts that are open."""
    answer_is_kept: bool = False
    """Its conversation is above the workload's own class."""
    limit_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """What its answer says of the caller's limits."""
    classified_s: float = 0.0
    """What it took to find the labels."""
    queued_s: float = 0.0
    """How long it has waited for a replica."""
    avoided: Mapping[str, str] = field(default_factory=dict)
    """Endpoints that it does not go to, with the reason: those that have no room for a request that
    can wait."""
    attempts: list["Attempt"] = field(default_factory=list)
    answered_by: "Attempt | None" = None
    """Whose answer the client gets, of whatever was tried beside it."""
    trace: "RequestTrace | None" = None

    @property
    def data_class(self) -> DataClass:
        own = self.rules.catalogue.workloads[self.caller.workload].data_class
        return max(own, self.labels.highest)

    @property
    def decisive(self) -> "Attempt | None":
        """What became of the request: its answer's attempt, else the last one made."""
        return self.answered_by or (self.attempts[-1] if self.attempts else None)

    @property
    def used(self) -> Usage:
        """By all attempts together."""
        used = [attempt.used for attempt in self.attempts]
        if len(used) == 1:
            return used[0]
        return Usage(
            sum(u.prompt_tokens for u in used),
            sum(u.completion_tokens for u in used),
            sum(u.cached_tokens for u in used),
        )


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
    estimated_prompt_tokens: int = 0
    """For the same: by the length of what is sent."""
    is_sent: bool = False
    """Whether the request was written to a connection."""
    outcome: str = "cancelled"
    kind: str = "first"
    """Or `retry`, `hedge`, `continuation`."""
    asked_s: float = 0.0
    """When a place was first wanted for it."""
    trace: "AttemptTrace | None" = None

    @property
    def endpoint(self) -> str:
        return self.grant.candidate.endpoint

    def was_sent(self) -> None:
        self.is_sent = True

    @property
    def usage_source(self) -> str:
        """`engine`: its word; `counted`: by what was sent and what was passed on; `none`: nothing
        reached the endpoint, and nothing was used."""
        if self.usage is not None:
            return "engine"
        return "counted" if self.is_sent and self.outcome != "unreachable" else "none"

    @property
    def used(self) -> Usage:
        """By `usage_source`. A status that refuses costs no prompt."""
        if self.usage is not None:
            return self.usage
        if self.usage_source == "none" or self.outcome.startswith("status_"):
            return self.counted
        prompt = self.counted.prompt_tokens or self.estimated_prompt_tokens
        return replace(self.counted, prompt_tokens=prompt)

    @property
    def traceparent(self) -> str:
        """W3C's, for the endpoint; empty without a trace."""
        return self.trace.traceparent if self.trace is not None else ""
