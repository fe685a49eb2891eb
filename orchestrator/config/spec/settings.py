"""How the product itself runs: policy, gateway, controller."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.spec.access import JwtIssuer
from orchestrator.config.spec.base import HttpUrl, Name, Seconds, Share, Spec
from orchestrator.config.spec.classifier import ClassifierSpec

Weight = Annotated[float, Field(ge=0)]


class Weights(Spec):
    """How much each score counts. The lowest weighted sum wins."""

    ttft: Weight = Field(default=1.0, description="predicted TTFT, as a share of its SLO")
    itl: Weight = Field(default=0.5, description="predicted ITL, as a share of its SLO")
    cost: Weight = Field(default=0.2, description="what it costs, as a share of the ceiling")
    zone: Weight = Field(default=0.1, description="1 outside the preferred zones")
    headroom: Weight = Field(default=0.05, description="share of the slots that are taken")
    affinity: Weight = Field(
        default=0.05, description="1 where the conversation's prefix is not in the KV cache"
    )


class Policy(Spec):
    """What holds for every workload."""

    weights: Weights = Field(default=Weights(), description="of the scores")
    classifier: ClassifierSpec = Field(
        default=ClassifierSpec(), description="what content raises the class of a request"
    )
    max_attempts: int = Field(default=3, ge=1, le=10, description="grants per request")
    retry_budget: Share = Field(
        default=0.2,
        description="attempts beyond the first, as a share of the requests, so that an outage is "
        "not met with more load; a few are always allowed",
    )
    snapshot_stale_s: Seconds = Field(
        default=120,
        description="with a snapshot older than this, requests count as restricted, and go to no "
        "burst pool",
    )


class Timeouts(Spec):
    """How long the gateway waits for an endpoint."""

    connect_s: Seconds = Field(default=5, description="for a connection")
    first_token_s: Seconds = Field(default=60, description="for the first token of an attempt")
    between_tokens_s: Seconds = Field(default=30, description="from one token to the next")
    total_s: Seconds = Field(default=600, description="for the whole answer")


class Batches(Spec):
    """What `/v1/files` and `/v1/batches` may keep in the gateway's state directory."""

    max_file_bytes: int = Field(
        default=200 * 1024 * 1024, ge=1024, description="of an uploaded file"
    )
    max_lines: int = Field(default=50_000, ge=1, description="of a batch's input file")
    max_workload_bytes: int = Field(
        default=10 * 1024**3, ge=1024, description="of all files that one workload has uploaded"
    )
    retention_s: Seconds = Field(
        default=30 * 86400,
        description="a file that was given no `expires_after` is deleted then, and a batch that "
        "has been over for so long",
    )


class Gateway(Spec):
    """Where clients come in."""

    url: HttpUrl = Field(description="the endpoint: where its replicas listen")
    cluster: Name = Field(description="the Ray cluster whose Serve runs the replicas")
    replicas: int = Field(default=1, ge=1, description="on one node they share the port")
    max_body_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="of a request; a larger one is refused"
    )
    max_concurrent_requests: int = Field(
        default=2000, ge=1, description="open in one replica; what is over them is refused"
    )
    max_queued_requests: int = Field(
        default=1000,
        ge=1,
        description="waiting in one replica for endpoints that are full; over them the least "
        "important is refused",
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="of its requests to endpoints")
    batches: Batches = Field(default=Batches(), description="files and batches")
    jwt: list[JwtIssuer] = Field(
        default=[], description="whose tokens are taken where an API key would be"
    )


class Controller(Spec):
    """What watches the fleet and scales it."""

    url: HttpUrl = Field(description="where gateways exchange reports for snapshots")
    mode: Literal["active", "advisory"] = Field(
        default="active",
        description="`advisory`: plans and events say what it would do; nothing is scaled, and "
        "nobody bursts",
    )
    lease: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$")] | None = Field(
        default=None,
        description="Kubernetes Lease, as `namespace/name`, by which several controllers agree on "
        "the one that leads; none: a lock in the state directory of one machine",
    )
    tick_s: Seconds = Field(default=1, description="from one look at the fleet to the next")
    window_s: Seconds = Field(default=20, description="length of the latency windows")
    drain_timeout_s: Seconds = Field(
        default=600, description="a drain that lasts longer is reported, never forced"
    )
    provision_patience: Annotated[float, Field(ge=1)] = Field(
        default=3,
        description="a scale-up that brings no replica for so many times the pool's `provision_s` "
        "is given up, bursts go to the next best pool, and it is tried again after a pause that "
        "doubles each time",
    )
