"""A Ray cluster's pools without Ray, for tests of what the controller makes of them."""

from typing import Any

from orchestrator.policy.catalogue import Candidate
from orchestrator.pools.ray import PoolError, Replicas
from orchestrator.signals.engine import EngineMetrics


class FakeCluster:
    """All pools of all clusters; takes the place of `RayPools`."""

    def __init__(self) -> None:
        self.answers = True
        self.replicas: dict[str, Replicas] = {}
        self.metrics: dict[str, EngineMetrics] = {}
        self.scaled: list[tuple[str, int]] = []
        self.scale_error: Exception | None = None
        self.warmed_up: list[str] = []

    def __call__(self, *_: Any) -> "FakeCluster":
        return self

    async def observe(self, candidates: list[Candidate]) -> dict[str, Replicas]:
        if not self.answers:
            raise PoolError("the dashboard is away")
        return {
            c.endpoint: self.replicas[c.endpoint] for c in candidates if c.endpoint in self.replicas
        }

    async def engine_metrics(self, candidate: Candidate) -> EngineMetrics:
        if candidate.endpoint not in self.metrics:
            raise PoolError("no metrics")
        return self.metrics[candidate.endpoint]

    async def warm_up(self, candidate: Candidate) -> None:
        self.warmed_up.append(candidate.endpoint)

    async def scale(self, candidate: Candidate, replicas: int, _: Replicas | None) -> None:
        self.scaled.append((candidate.endpoint, replicas))
        if self.scale_error is not None:
            raise self.scale_error
