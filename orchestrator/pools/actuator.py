"""What a cluster is asked for, whatever its kind: what exists, how much of it there should be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.policy.candidate import Candidate


def clean(text: str) -> str:
    """What a cluster says, without what no UTF-8 can hold: nobody could write it down."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, length: int = 300) -> str:
    """A reason in a cluster's words, as one line of bounded length."""
    shown = (c if c.isprintable() else " " for c in clean(text[: length * 10]))
    return " ".join("".join(shown).split())[:length]


class PoolError(Exception):
    """The cluster did not do what was asked; the message says what it answered."""

    def __init__(self, summary: str, detail: str = "") -> None:
        """`detail`: in words that are not ours."""
        super().__init__(f"{summary}: {cut(detail, 500)}" if detail else summary)
        self.summary = summary
        """For logs: what the cluster answers may quote addresses and the environment of engines."""


Fence = Callable[[], None]
"""Raises PoolError unless this process still leads. To be called right before each request that
changes something: who was paused may have lost its lead at any await."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Replicas of one endpoint. Each is counted once: as ready, starting, stopping or leaving."""

    ready: int = 0
    starting: int = 0
    """Those that were asked for and do not serve yet, whether anything of them exists or not."""
    stopping: int = 0
    leaving: int = 0
    """Those that will be lost, as after a spot notice or on a node that is drained. They may still
    serve what they have; nothing new should go there."""
    pending_since_s: float | None = None
    """Since when the oldest of `starting` has been on its way, where the cluster tells: seconds
    since the epoch."""
    deployed: bool = True
    """False while the cluster still builds the endpoint: nothing can be scaled yet."""
    failed: str | None = None
    """The cluster's reason when it cannot make what was asked for. It may still be trying."""

    @property
    def abandoned(self) -> bool:
        """Whether the cluster tries no more: the endpoint could not even be built."""
        return not self.deployed and self.failed is not None

    @property
    def standing(self) -> int:
        """Those that are there to stay, and what targets are compared with."""
        return self.ready + self.starting

    @property
    def total(self) -> int:
        """Whatever takes up hardware."""
        return self.ready + self.starting + self.stopping + self.leaving


@dataclass(frozen=True, slots=True)
class Unowned:
    """What bears our mark and belongs to no candidate: the rest of a pool that the rules have no
    more, or of a controller that died in the middle of something."""

    name: str
    """For `release`."""
    endpoint: str | None = None
    """`pool/variant`, where it can be told: what gateways count their requests to it by."""
    url: str | None = None
    """Of its engine, where it may have one: asked whether it is idle."""
    replicas: Replicas = Replicas()


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at a cluster."""

    replicas: dict[str, Replicas]
    """By endpoint; one that is not deployed is absent."""
    unowned: list[Unowned] = field(default_factory=list)


class Actuator(Protocol):
    """The pools of one cluster. Every method raises PoolError, is idempotent, and may be cancelled
    at any await: what it left half done, the next call finds and mends."""

    async def observe(self, candidates: list[Candidate]) -> Observed:
        """What exists in the cluster; `candidates` are all that the rules have there."""

    async def scale(self, candidate: Candidate, replicas: int, existing: Replicas | None) -> None:
        """Sets how many replicas should stand, beside those that are leaving. `existing` is what
        was observed last; None: nothing is deployed, so it is deployed first."""

    async def release(self, name: str) -> None:
        """Takes away what `observe` found unowned, with its replicas. It may be gone already."""

    async def close(self) -> None:
        """Ends what runs in the background. Changes nothing in the cluster."""
