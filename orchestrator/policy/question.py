"""One candidate seen against one request: what constraints and scores look at."""

from dataclasses import dataclass

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Workload
from orchestrator.policy.catalogue import Candidate
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import EndpointState, Snapshot

UNKNOWN = EndpointState()


@dataclass(frozen=True, slots=True)
class Question:
    facts: Facts
    workload: Workload
    data_class: DataClass
    """The effective class: the highest of all labels."""
    candidate: Candidate
    snapshot: Snapshot

    @property
    def state(self) -> EndpointState:
        return self.snapshot.endpoints.get(self.candidate.endpoint, UNKNOWN)

    @property
    def is_burst_pool(self) -> bool:
        burst = self.workload.burst
        return burst is not None and self.candidate.pool.name in burst.pools

    @property
    def load(self) -> int:
        """Requests at the endpoint: this gateway's count is live, the others' is a tick old."""
        own = self.facts.inflight.get(self.candidate.endpoint, 0)
        others = sum(
            n for gateway, n in self.state.inflight.items() if gateway != self.facts.gateway_id
        )
        return own + others
