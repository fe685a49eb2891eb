"""The immutable, versioned state that a gateway decides on."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EndpointState(Frozen):
    """What is known of one (pool, variant)."""

    ready_replicas: int = 0
    running: int = 0
    waiting: int = 0
    queued: int = 0
    """Requests that wait in gateways and would run there, each counted at one endpoint."""
    inflight: dict[str, int] = {}
    """Requests that each gateway has open there, by gateway id."""
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    slot_s: float | None = None
    """Mean time that a request holds a slot: from its first token to its last."""


class Quote(Frozen):
    """A price with its source and age."""

    usd_per_gpu_hour: float
    source: str
    fetched_at_s: float
    valid_to_s: float


class BurstPhase(StrEnum):
    HOME = "home"
    BURSTING = "bursting"
    DRAINING = "draining"


class BurstState(Frozen):
    """Where a workload stands: `home → bursting → draining → home`."""

    phase: BurstPhase = BurstPhase.HOME
    pool: str | None = None
    since_s: float = 0
    reason: str = "nothing has called for a burst"
    condition_since_s: float | None = None
    """Since when the condition for leaving this phase has held without a break."""


class Hold(StrEnum):
    """A pool that takes no request now, by somebody's word."""

    DRAINED = "drained"
    """What runs there ends there."""
    LEAVING = "leaving"
    """Its replicas will be lost, as after a spot notice: streams go on elsewhere where they can."""


class Snapshot(Frozen):
    """Published by the controller, held by every gateway. Times are seconds since the epoch."""

    version: int = 0
    config_version: str
    created_at_s: float
    endpoints: dict[str, EndpointState] = {}
    quotes: dict[str, Quote] = {}
    """By pool."""
    holds: dict[str, Hold] = {}
    """By pool."""
    bursts: dict[str, BurstState] = {}
    """By workload."""
    prompt_tokens: dict[str, float] = {}
    """Mean of what a model is asked, by model."""
    budget_left_usd: dict[str, float] = {}
    """By workload; absent: no budget is set."""
