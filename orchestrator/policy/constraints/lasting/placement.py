"""A candidate for the requests of a workload, seen before any of them comes."""

from dataclasses import dataclass

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Workload
from orchestrator.policy.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Placement:
    workload: Workload
    data_class: DataClass
    """The effective class of the requests."""
    smaller_variant: bool
    """Whether the workload's fallback quality counts."""
    candidate: Candidate
