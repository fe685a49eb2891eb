"""What is found, and what is remembered from one sweep to the next."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Kind(StrEnum):
    IDLE = "idle"
    """Replicas without a request, beyond those that were declared."""
    GHOST = "ghost"
    """A GPU in use without memory, process and pod."""
    ORPHAN = "orphan"
    """What is ours in a cluster and in no snapshot."""
    PENDING = "pending"
    """Replicas that do not come up."""
    ADAPTER = "adapter"
    """A LoRA adapter that is loaded and declared by no variant."""


Mark = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """What speaks against something in this sweep. It is a zombie when it has stood for a time."""

    after_s: float
    """For how long it must stand."""
    evidence: str
    mend: str
    cluster: str
    pools: tuple[str, ...]
    """That it belongs to; more than one where it cannot be told."""
    gpus: float
    """That are paid for."""
    endpoint: str | None = None
    replicas: int = 0
    """To be given back."""
    mark: Mark = ()
    """What must be the same in every sweep; another one begins anew."""
    room: int | None = None
    """How many replicas of the endpoint may be found at most. None: all."""
    doubt: str | None = None
    """Why it must not be given back without somebody looking."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a sweep says of one thing. Of what it knows nothing about, it has no look."""

    kind: Kind
    subject: str
    suspect: Suspect | None = None
    """None: it is well."""


class Note(BaseModel):
    """A suspicion, as it is carried from sweep to sweep."""

    model_config = ConfigDict(frozen=True)

    since_s: float
    seen_s: float
    mark: Mark = ()
    usd: float | None = None
    """What it has cost since then; None where there was never a price."""
    reported_s: float | None = None
    """When it was first found."""


Notes = dict[str, Note]
"""By kind and subject."""


class Finding(BaseModel):
    """Something that is paid for and does nothing."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    subject: str
    cluster: str
    pool: str | None
    endpoint: str | None
    replicas: int
    owner: str | None
    """Who is asked about it, as the configuration says."""
    workloads: list[str]
    """That may use the pool."""
    since_s: float
    reported_s: float
    cost_usd: float | None
    """So far. None where there is no price."""
    evidence: str
    mend: str
    """What to type."""
    doubt: str | None = None
    """Why it is not given back without somebody looking."""

    @property
    def key(self) -> str:
        return key(self.kind, self.subject)


def key(kind: Kind, subject: str) -> str:
    return f"{kind}:{subject}"
