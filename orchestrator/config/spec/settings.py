"""How the product itself runs: policy, gateway, controller."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.spec.base import HttpUrl, Name, Seconds, Spec

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

    weights: Weights = Weights()
    max_attempts: int = Field(default=3, ge=1, le=10, description="grants per request")
    snapshot_stale_s: Seconds = Field(
        default=120,
        description="with a snapshot older than this, requests count as restricted",
    )


class Timeouts(Spec):
    connect_s: Seconds = 5
    first_token_s: Seconds = 60
    between_tokens_s: Seconds = 30
    total_s: Seconds = 600


class Gateway(Spec):
    url: HttpUrl = Field(description="the endpoint: where its replicas listen")
    cluster: Name = Field(description="the Ray cluster whose Serve runs the replicas")
    replicas: int = Field(default=1, ge=1, description="on one node they share the port")
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_concurrent_requests: int = Field(default=2000, ge=1)
    timeouts: Timeouts = Timeouts()


class Controller(Spec):
    url: HttpUrl = Field(description="where gateways exchange reports for snapshots")
    tick_s: Seconds = 1
    window_s: Seconds = Field(default=20, description="length of the latency windows")
    drain_timeout_s: Seconds = Field(
        default=600, description="a drain that lasts longer is reported, never forced"
    )
