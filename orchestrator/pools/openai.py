"""Endpoints that somebody else runs: they are there, and are never scaled."""

import aiohttp

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Fence, Observed, PoolError, Replicas


class OpenAIPools:
    """The pools of one such endpoint: they have what the rules say that is held of them."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession, fence: Fence) -> None:
        self._cluster = cluster

    async def observe(self, candidates: list[Candidate]) -> Observed:
        return Observed({c.endpoint: Replicas(ready=c.pool.min_replicas) for c in candidates})

    async def scale(self, candidate: Candidate, replicas: int, existing: Replicas | None) -> None:
        raise PoolError(f"{candidate.endpoint}: cluster '{self._cluster.name}' is not ours")

    async def release(self, name: str) -> None:
        raise PoolError(f"{name}: cluster '{self._cluster.name}' is not ours")

    async def close(self) -> None:
        pass
