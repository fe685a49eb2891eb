"""Where requests can run: zones, clusters, pools."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.spec.base import (
    Certification,
    Cidr,
    DataClassLabel,
    DnsLabel,
    HttpUrl,
    Jurisdiction,
    Name,
    Quantity,
    Seconds,
    Spec,
)
from orchestrator.config.spec.prices import Price


class Zone(Spec):
    """A trust boundary."""

    name: Name = Field(description="how workloads and clusters refer to it")
    jurisdiction: Jurisdiction = Field(
        description="whose law applies: ISO 3166 country, also with a subdivision, or EU"
    )
    max_data_class: DataClassLabel = Field(description="the highest data class it may hold")
    certifications: list[Certification] = Field(
        default=[], description="what it is certified for, such as ISO27001, C5, HIPAA"
    )


class RayLaunch(Spec):
    """How `up` starts this cluster on the machine it runs on."""

    node_ip_address: str = Field(
        default="127.0.0.1", description="a loopback address of its own for each cluster"
    )
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


class Kubernetes(Spec):
    """How a cluster's objects are reached, and what its pods run."""

    namespace: DnsLabel = Field(description="where its objects live")
    image: str = Field(
        min_length=1,
        description="of all pods: Ray, vLLM and this package, in the versions of the lock",
    )
    kubeconfig_env: str | None = Field(
        default=None,
        description="environment variable with the path of a kubeconfig; without it the "
        "controller runs in the cluster and uses its service account",
    )
    context: str | None = Field(
        default=None, description="of the kubeconfig, instead of its current one"
    )
    api_server: list[Cidr] = Field(
        default=[],
        description="addresses of its API server, such as 10.96.0.1/32: `manifests render` lets "
        "nothing else be reached by what asks it",
    )
    weights_claim: DnsLabel | None = Field(
        default=None, description="PersistentVolumeClaim with weights, mounted at /models to read"
    )
    secrets: list[DnsLabel] = Field(
        default=[], description="Secrets whose entries are environment variables of the replicas"
    )


class Cluster(Spec):
    """One Ray cluster, one namespace of Ray clusters or one endpoint, inside one zone."""

    name: Name = Field(description="how pools refer to it")
    zone: Name = Field(description="where it stands")
    kind: Literal["ray", "kuberay", "openai"] = Field(
        description="`ray`: we scale its Serve applications; `kuberay`: we scale RayServices in a "
        "namespace; `openai`: an endpoint that somebody else runs, never scaled"
    )
    url: HttpUrl = Field(
        description="ray: the Serve front; kuberay: the same of a RayService, whose name stands "
        "for `{service}`, as in `http://{service}-serve-svc.llm.svc:8000`, or an ingress that goes "
        "by the path `/pools/POOL/VARIANT`; openai: the API's base URL, without /v1"
    )
    dashboard_url: HttpUrl | None = Field(default=None, description="ray only: Ray's dashboard")
    kubernetes: Kubernetes | None = Field(default=None, description="kuberay only")
    token_env: str | None = Field(
        default=None,
        description="environment variable with the bearer token (Ray's, or the endpoint's API key)",
    )
    ca_file: str | None = Field(
        default=None,
        description="for an https `url`: PEM file of the authorities to trust there, instead of "
        "the system's",
    )
    engine: Literal["vllm", "other"] = Field(
        default="other",
        description="openai only: with `vllm`, what vLLM understands beyond OpenAI's API is used "
        "there: token counts at every chunk, and answers that go on after a lost replica",
    )
    dcgm_urls: list[HttpUrl] = Field(
        default=[],
        description="the `/metrics` of the DCGM exporters of its nodes, where GPUs are watched",
    )
    launch: RayLaunch | None = Field(
        default=None,
        description="ray only: for clusters that `up` starts; without it they run already",
    )


class Pod(Spec):
    """What the pod of one replica asks for beside its accelerators, and where it may run."""

    cpu: Quantity = Field(default="4", description="requested processors")
    memory: Quantity = Field(default="32Gi", description="requested, and its limit")
    node_labels: dict[str, str] = Field(
        default={},
        description="of the nodes that it may run on; taints of the same keys are tolerated",
    )


class Pool(Spec):
    """Interchangeable accelerators in one cluster."""

    name: Name = Field(description="how variants and bursts refer to it")
    cluster: Name = Field(description="that it belongs to")
    owner: str | None = Field(default=None, description="who is asked about it: a team, an address")
    accelerator: str = Field(description="as Ray names it: H100, L40S, CPU")
    capacity_type: Literal["reserved", "on-demand", "spot"] = Field(
        default="reserved", description="owned or committed, rented by the hour, or preemptible"
    )
    gpus_per_replica: int = Field(default=1, ge=1, description="what one replica takes")
    min_replicas: int = Field(
        default=0,
        ge=0,
        description="of each variant that it runs; with 0 the pool is there for those who burst to "
        "it, and for nobody else",
    )
    max_replicas: int = Field(ge=1, description="of each variant that it runs")
    provision_s: Seconds = Field(description="usual time from a scale-up to a replica that serves")
    price: Price = Field(description="what it costs")
    pod: Pod | None = Field(default=None, description="kuberay only: other than the defaults")
