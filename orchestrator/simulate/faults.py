"""How a simulated engine fails."""

import random
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    STATUS = "status"
    """Answers 500, with text that nobody outside should see."""
    RATE_LIMIT = "rate_limit"
    """Answers 429."""
    UNAUTHORIZED = "unauthorized"
    """Answers 401: our own credentials there are wrong."""
    CONTEXT_LENGTH = "context_length"
    """Answers 400, as vLLM does to a prompt that is too long."""
    HANG = "hang"
    """Takes the request and never sends headers."""
    STALL = "stall"
    """Falls silent after some tokens, the connection open."""
    CUT = "cut"
    """Closes the connection after some tokens."""
    ERROR_EVENT = "error_event"
    """Sends an error event in the stream after some tokens, as vLLM does when its core dies."""
    NO_USAGE = "no_usage"
    """Answers whole, without token counts."""
    MALFORMED = "malformed"
    """Answers 200 with a body that is not JSON."""


STATUSES = {
    FaultKind.STATUS: (500, "engine core died at /srv/weights with key sk-secret"),
    FaultKind.RATE_LIMIT: (429, "too many requests"),
    FaultKind.UNAUTHORIZED: (401, "wrong key"),
    FaultKind.CONTEXT_LENGTH: (400, "This model's maximum context length is 16 tokens."),
}
"""Kinds that answer with an error status, and what they say."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    after_tokens: int = 0
    rate: float = 1.0
    """Share of the requests that it meets."""

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """`KIND`, `KIND:AFTER_TOKENS` or `KIND:AFTER_TOKENS:RATE`. Raises ValueError."""
        kind, *rest = text.split(":")
        try:
            fault = cls(FaultKind(kind), *(f(r) for f, r in zip((int, float), rest, strict=False)))
        except ValueError:
            known = ", ".join(FaultKind)
            raise ValueError(
                f"'{text}': write KIND:AFTER_TOKENS:RATE; KIND is one of {known}"
            ) from None
        if len(rest) > 2 or fault.after_tokens < 0 or not 0 <= fault.rate <= 1:
            raise ValueError(f"'{text}': AFTER_TOKENS is 0 or more, RATE from 0 to 1")
        return fault

    def meets(self, chance: random.Random) -> bool:
        return chance.random() < self.rate
