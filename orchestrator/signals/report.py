"""What a gateway tells the controller at every tick. Counts and times, never content."""

from pydantic import BaseModel, ConfigDict


class EndpointReport(BaseModel):
    """One endpoint since the last report that was accepted."""

    model_config = ConfigDict(extra="forbid")

    inflight: int = 0
    waiting_ages_s: list[float] = []
    """Ages of streams that still wait for their first token."""
    ttft_s: list[float] = []
    slot_s: list[float] = []
    """From first token to last, per finished stream."""
    tokens: dict[str, int] = {}
    """Prompt and completion tokens by workload."""


class WorkloadReport(BaseModel):
    """What a workload's clients asked for and were answered, since the last report that was
    accepted."""

    model_config = ConfigDict(extra="forbid")

    requests: int = 0
    """That arrived within their limits, whether they were served or shed."""
    prompt_tokens: int = 0
    """Of these, as estimated for deciding."""
    answered: int = 0
    """Requests whose answer ended."""
    output_tokens: int = 0
    """Of these answers."""


class QueueReport(BaseModel):
    """Requests that wait in the gateway, because all that could take them is full or not there."""

    model_config = ConfigDict(extra="forbid")

    endpoints: list[str]
    """Where each of them could run at home."""
    ages_s: list[float]


class AuditHead(BaseModel):
    """The last row of a gateway's audit chain that is safe on disk."""

    model_config = ConfigDict(extra="forbid")

    seq: int
    hash: str


class GatewayReport(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gateway_id: str
    config_version: str
    """The rules by which this gateway decides."""
    audit_head: AuditHead | None = None
    snapshot_version: int
    """The snapshot on which this gateway decides."""
    endpoints: dict[str, EndpointReport] = {}
    queues: list[QueueReport] = []
    workloads: dict[str, WorkloadReport] = {}
    leaving: bool = False
    """The gateway's last report: it has no request open and takes no more."""
