"""The only key to an upstream."""

from dataclasses import InitVar, dataclass

from orchestrator.config.data_class import DataClass
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.snapshot import Quote

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to send one attempt of one request to one endpoint. Made by `decide` alone."""

    candidate: Candidate
    workload: str
    data_class: DataClass
    policy_version: str
    snapshot_version: int
    quote: Quote | None
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Grant comes from decide(); nothing else may make one")
        if self.data_class > self.candidate.zone.max_data_class:
            raise ValueError("a Grant never reaches a zone that may not hold the data")


def seal(
    candidate: Candidate,
    workload: str,
    data_class: DataClass,
    policy_version: str,
    snapshot_version: int,
    quote: Quote | None,
) -> Grant:
    """For `orchestrator.policy.decide` only; a test over the sources holds everyone to it."""
    return Grant(candidate, workload, data_class, policy_version, snapshot_version, quote, _SEAL)
