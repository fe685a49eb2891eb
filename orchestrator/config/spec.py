"""The configuration language: what a platform team writes in YAML.

Every model refuses unknown fields. Units are part of the field names. Cross-references are
checked in `orchestrator.config.load`, where file and line are known.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from orchestrator.config.data_class import DataClass

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(:\d+)?(/[^\s?#]*)?$")]
Seconds = Annotated[float, Field(gt=0)]
Usd = Annotated[float, Field(ge=0)]


def _data_class(value: object) -> object:
    return DataClass.parse(value) if isinstance(value, str) else value


DataClassLabel = Annotated[
    DataClass, BeforeValidator(_data_class), PlainSerializer(lambda c: c.label, return_type=str)
]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Zone(Spec):
    """A trust boundary."""

    name: Name
    jurisdiction: str
    max_data_class: DataClassLabel = Field(description="the highest data class it may hold")


class RayLaunch(Spec):
    """How `up` starts this cluster on the machine it runs on."""

    node_ip_address: str = "127.0.0.1"
    port_base: int = Field(
        ge=1024, le=60000, description="the cluster uses the 100 ports from here"
    )
    num_cpus: int = Field(default=8, ge=1, description="logical processors given to Ray")
    cpus: list[Annotated[int, Field(ge=0)]] = Field(
        default=[],
        description="processors that all its processes are pinned to, so that clusters that share "
        "a machine have capacity of their own; empty: any",
    )
    env: dict[str, str] = Field(
        default={}, description="environment of all its processes, over what `up` sets"
    )


class Cluster(Spec):
    """One Ray cluster, Kubernetes cluster or endpoint, inside one zone."""

    name: Name
    zone: Name
    kind: Literal["ray", "openai"]
    url: HttpUrl = Field(
        description="ray: the Serve front; openai: the API's base URL, without /v1"
    )
    dashboard_url: HttpUrl | None = Field(default=None, description="ray only: Ray's dashboard")
    token_env: str | None = Field(
        default=None,
        description="environment variable with the bearer token (Ray's, or the endpoint's API key)",
    )
    launch: RayLaunch | None = None


class Price(Spec):
    """Where the price of a pool comes from: a fixed figure or a feed."""

    fixed_usd_per_gpu_hour: Usd | None = None
    feed: Name | None = None


class Pool(Spec):
    """Interchangeable accelerators in one cluster."""

    name: Name
    cluster: Name
    accelerator: str
    gpus_per_replica: int = Field(default=1, ge=1)
    min_replicas: int = Field(default=0, ge=0, description="of each variant that it runs")
    max_replicas: int = Field(ge=1, description="of each variant that it runs")
    provision_s: Seconds = Field(description="usual time from a scale-up to a replica that serves")
    price: Price


class Variant(Spec):
    """What a replica actually runs."""

    name: Name
    weights: str = Field(description="path or hub id; a relative path starts at this file's folder")
    quality: float = Field(default=1.0, ge=0, le=1)
    pools: list[Name] = Field(min_length=1)
    max_model_len: int = Field(ge=1)
    max_num_seqs: int = Field(ge=1, description="sequences that one replica decodes at once")
    engine_args: dict[str, str | int | float | bool] = {}
    env: dict[str, str] = Field(default={}, description="environment of the engine's processes")


class Model(Spec):
    """The name that clients ask for."""

    name: Name
    variants: list[Variant] = Field(min_length=1)


class Slo(Spec):
    ttft_p95_s: Seconds = Field(description="time to first token")
    itl_p95_s: Seconds | None = Field(default=None, description="inter-token latency")


class Budget(Spec):
    """What a workload may spend on burst pools; when it is spent the workload stays at home."""

    usd_per_day: Annotated[float, Field(gt=0)]


class Burst(Spec):
    """When a workload may leave its home pools, for where, and when it comes back."""

    pools: list[Name] = Field(min_length=1)
    ttft_p95_s: Seconds | None = Field(default=None, description="start above this")
    queue_per_replica: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="start above this many waiting requests per home replica"
    )
    sustained_s: Seconds = Field(default=5, description="a trigger must hold for so long")
    release_utilization: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.6,
        description="come back when the home slots could hold all running requests at this share",
    )
    release_sustained_s: Seconds = Field(
        default=30, description="the calm that ends a burst must hold for so long"
    )
    min_dwell_s: Seconds = Field(default=60, description="shortest stay in the bursting state")
    cooldown_s: Seconds = Field(default=60, description="shortest stay at home after a burst")
    max_usd_per_gpu_hour: Annotated[float, Field(gt=0)] = Field(
        description="no burst is started, and no request leaves, above this quote"
    )


class Workload(Spec):
    """Who is calling, and what that caller may have."""

    name: Name
    data_class: DataClassLabel = DataClass.RESTRICTED
    models: list[Name] = Field(min_length=1)
    allowed_zones: list[Name] = Field(min_length=1)
    slo: Slo
    budget: Budget | None = None
    burst: Burst | None = None


class Key(Spec):
    """An API key. Only the hash of its secret is stored."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]{8}$")]
    workload: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: datetime
    expires_at: AwareDatetime | None = None


class Weights(Spec):
    """How much each score counts. The lowest weighted sum wins."""

    latency: Annotated[float, Field(ge=0)] = 1.0
    price: Annotated[float, Field(ge=0)] = 0.2


class Policy(Spec):
    """Defaults for every workload."""

    weights: Weights = Weights()
    max_attempts: int = Field(default=3, ge=1, le=10, description="grants per request")
    snapshot_stale_s: Seconds = Field(
        default=120,
        description="with a snapshot older than this, requests count as restricted",
    )


class PriceFeed(Spec):
    """A CSV of `time_s,usd_per_gpu_hour`; each row holds until the next, the last one for good."""

    name: Name
    file: str = Field(description="path; a relative one starts at this file's folder")
    time_scale: Annotated[float, Field(gt=0)] = Field(
        default=1, description="seconds of the feed that pass in one second"
    )
    max_age_s: Seconds = Field(
        default=300, description="a quote that could not be refreshed for so long is stale"
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


class Configuration(Spec):
    """The whole of a configuration directory."""

    zones: list[Zone] = Field(min_length=1)
    clusters: list[Cluster] = Field(min_length=1)
    pools: list[Pool] = Field(min_length=1)
    models: list[Model] = Field(min_length=1)
    workloads: list[Workload] = Field(min_length=1)
    price_feeds: list[PriceFeed] = []
    keys: list[Key] = []
    policy: Policy = Policy()
    gateway: Gateway
    controller: Controller
