"""One look at everything that costs money. Times are seconds since the epoch, by our clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.policy.snapshot import Quote
from orchestrator.signals.dcgm import Gpu
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.reading import Reading


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers `/metrics`."""

    name: str
    """The replica's; the endpoint's where a front answers for all of its replicas."""
    replicas: int = 1
    """That it may be any of."""
    metrics: Reading[EngineMetrics] | None = None
    adapters: Reading[frozenset[str]] | None = None
    """LoRA adapters that are loaded, whether used or not."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The replicas of one (pool, variant)."""

    observed_s: float | None
    """When its cluster last told what exists."""
    ready: int = 0
    """That have answered a request; those that still warm up are not among them."""
    starting: int = 0
    target: int = 0
    """How many there should be."""
    standby: int = 0
    """How many somebody has declared, whether they have work or not."""
    held: bool = False
    """By somebody's word the pool takes no request now."""
    draining: bool = False
    """A burst leaves it, and waits until every gateway knows."""
    open_requests: int | None = None
    """By the gateways' count, also those that wait for it there. None: a gateway is silent."""
    served: int | None = None
    """Requests that gateways had answered there, ever rising."""
    pending_since_s: float | None = None
    """Since when the oldest of `starting` is on its way, by the cluster's clock."""
    failed: str | None = None
    engines: tuple[Engine, ...] = ()
    """Of the replicas that are ready."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What bears our mark in a cluster and belongs to no endpoint of the configuration."""

    name: str
    cluster: str
    observed_s: float
    endpoint: str | None = None
    """`pool/variant`, where it can be told."""
    replicas: int = 0
    busy: bool | None = None
    """Whether a request is open there. None: not known."""


@dataclass(frozen=True, slots=True)
class Sweep:
    known: Reading[frozenset[str]]
    """The endpoints that the newest snapshot names."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    gpus: tuple[tuple[str, Reading[list[Gpu]]], ...] = ()
    """Cluster and GPUs, for each exporter."""
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    """The last known price of each pool, stale or not: what was paid for is paid for."""
