"""Pools without a cluster, for tests of what the controller makes of them."""

import asyncio
from typing import Any

import pytest

from orchestrator.controller import fleet
from orchestrator.policy.catalogue import Candidate
from orchestrator.pools.actuator import Observed, PoolError, Replicas, Unowned
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.prices_feed import Feed
from orchestrator.signals.prices_trust import Figure


class FakeCluster:
    """All pools of all Ray clusters, and their engines."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setitem(fleet.ACTUATORS, "ray", lambda spec, *_: _Pools(self, spec.name))
        patch.setattr(fleet, "engine_metrics", self._engine_metrics)
        patch.setattr(fleet, "warm_up", self._warm_up)
        self.answers = True
        self.leads = True
        """Whether the controller of this fleet does."""
        self.hanging: set[str] = set()
        """Clusters and endpoints of which no call ever returns."""
        self.replicas: dict[str, Replicas] = {}
        self.metrics: dict[str, EngineMetrics] = {}
        self.scaled: list[tuple[str, int]] = []
        self.scale_error: Exception | None = None
        self.warmed_up: list[str] = []
        self.unowned: list[Unowned] = []
        """In the cluster `away`."""
        self.released: list[str] = []

    async def observe(self, cluster: str, candidates: list[Candidate]) -> Observed:
        await self._hang({cluster})
        if not self.answers:
            raise PoolError("the dashboard is away")
        mine = {c.endpoint for c in candidates}
        unowned = self.unowned if cluster == "away" else []
        return Observed({e: r for e, r in self.replicas.items() if e in mine}, list(unowned))

    async def release(self, name: str) -> None:
        self.released.append(name)
        self.unowned = [u for u in self.unowned if u.name != name]

    async def _engine_metrics(self, _: Any, url: str) -> EngineMetrics:
        endpoint = url.partition("/pools/")[2]
        if endpoint not in self.metrics:
            raise PoolError("no metrics")
        return self.metrics[endpoint]

    async def _warm_up(self, _: Any, candidate: Candidate) -> None:
        self.warmed_up.append(candidate.endpoint)

    async def scale(self, candidate: Candidate, replicas: int, _: Replicas | None) -> None:
        self.scaled.append((candidate.endpoint, replicas))
        await self._hang({candidate.endpoint})
        if self.scale_error is not None:
            raise self.scale_error

    async def _hang(self, names: set[str]) -> None:
        if names & self.hanging:
            await asyncio.Event().wait()


class _Pools:
    """Of one cluster."""

    def __init__(self, of: FakeCluster, name: str) -> None:
        self._of, self._name = of, name
        self.scale, self.release = of.scale, of.release

    async def observe(self, candidates: list[Candidate]) -> Observed:
        return await self._of.observe(self._name, candidates)

    async def close(self) -> None:
        pass


def every_feed_says(patch: pytest.MonkeyPatch, usd_per_gpu_hour: float) -> None:
    """Always freshly."""

    def refresh(feed: Feed, now_s: float) -> None:
        figure = Figure(usd_per_gpu_hour, now_s, now_s + feed.spec.max_age_s)
        patch.setattr(feed, "figure", lambda _: figure, raising=False)

    patch.setattr(Feed, "refresh", refresh)
