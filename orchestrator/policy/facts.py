"""What a decision is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.config.data_class import DataClass


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about a request that placement may depend on, and nothing of its content.

    `data_class` is the caller's claim; it can raise the workload's class, never lower it.
    `inflight` counts the requests that this gateway itself has open, by endpoint.
    `excluded` holds endpoints that failed this request or are ejected, with the reason.
    """

    workload: str
    model: str
    gateway_id: str = ""
    data_class: DataClass = DataClass.PUBLIC
    total_tokens: int = 0
    """Prompt (estimated) plus the most that may be generated."""
    snapshot_age_s: float = 0
    inflight: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
