"""What a decision is about."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from orchestrator.config.data_class import DataClass
from orchestrator.policy.arrays import Ints

_NONE: Mapping[str, Any] = MappingProxyType({})


class Facts(NamedTuple):
    """Everything about a request that placement may depend on, and nothing of its content.

    Three labels can raise the class of the workload, and none can lower it.
    """

    workload: str
    model: str
    claimed: DataClass = DataClass.PUBLIC
    """By the caller, in a header."""
    session: DataClass = DataClass.PUBLIC
    """The highest class that its conversation has had."""
    content: DataClass = DataClass.PUBLIC
    """By the classifier."""
    max_tokens: int = 0
    """The most that may be generated; 0: left to the engine."""
    prompt_tokens: int = 0
    """Estimated, for predictions."""
    snapshot_age_s: float = 0
    inflight: Ints | None = None
    """Requests that this gateway itself has open, by candidate number. None: none."""
    excluded: Mapping[str, str] = _NONE
    """Endpoints that failed this request or are ejected, with the reason."""
    affinity: Mapping[str, float] = _NONE
    """The share of the prompt that an endpoint's KV cache is thought to hold."""
    variant: str = ""
    """The only one that may take it, since it has begun the answer. Empty: any."""
    smaller_variant: bool = False
    """Nothing was feasible: take what `when_infeasible` allows."""
