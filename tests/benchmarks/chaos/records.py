"""What a run leaves behind, from which its verdict is made. Times are seconds since the epoch."""

from dataclasses import dataclass, field

from orchestrator.replay.observer import Sample

FAILURES = ("500",)
"""Answers of the feed that say nothing of the price."""


@dataclass(frozen=True, slots=True)
class Request:
    request_id: str
    workload: str
    pool: str
    """That began the answer; empty where none did."""
    outcome: str
    """As of `Stream`."""
    started_s: float
    ended_s: float
    connects: int = 1
    twice: str = ""
    """Text that came twice."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the price feed."""

    at_s: float
    kind: str
    """`truth`, a lie, or one of `FAILURES`."""
    usd: float | None
    """Per GPU-hour, as it was said; None where nothing was that can be plotted."""


@dataclass(slots=True)
class Fault:
    name: str
    pool: str
    """That cannot be expected to serve meanwhile; empty: every pool can."""
    began_s: float
    ended_s: float | None = None
    """When what it took was seen to be back; None: not yet."""
    note: str = ""

    def overlaps(self, from_s: float, to_s: float) -> bool:
        return self.began_s <= to_s and (self.ended_s is None or from_s <= self.ended_s)


@dataclass(frozen=True, slots=True)
class Place:
    """The rules that the verdict goes by."""

    bursting: str
    """The workload that may burst."""
    home_pool: str
    cloud_pool: str
    max_age_s: float
    """After which a price is stale."""


@dataclass(slots=True)
class Records:
    place: Place
    began_s: float
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    open_requests: int = 0
    """That have not ended when the load has."""
    unowned: list[str] | None = None
    """At the end, with the load gone: what no rule has a place for. None: nobody looked."""
    left: list[str] | None = None
    """Processes after `down`. None: nobody looked."""
    events_lost: int | None = None
    """Events of the last controller that are not on disk at the end."""
