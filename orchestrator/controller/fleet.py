"""What exists: replicas by endpoint, and what their engines say."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Actuator, PoolError, Replicas
from orchestrator.pools.engine import engine_metrics, warm_up
from orchestrator.pools.kuberay import KubeRayPools
from orchestrator.pools.openai import OpenAIPools
from orchestrator.pools.ray import RayPools
from orchestrator.signals.engine import EngineMetrics

log = logging.getLogger("orchestrator.controller")

LOST_AFTER_S = 15
"""An endpoint of which nothing was heard for so long is not ready any more."""
SCALE_RETRY_S = 10
DEPLOY_RETRY_S = 60
"""A deployment that Serve gave up is asked for again after so long."""


ACTUATORS: dict[str, Callable[[Cluster, aiohttp.ClientSession], Actuator]] = {
    "kuberay": KubeRayPools,
    "openai": OpenAIPools,
    "ray": RayPools,
}
"""By kind of cluster."""


class Fleet:
    """All pools of all clusters. Slow calls run beside the ticks, one per endpoint at a time."""

    def __init__(self, catalogue: Catalogue, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._replicas: dict[str, Replicas] = {}
        self._seen_s: dict[str, float] = {}
        self._unseen: set[str] = set()
        """Clusters that did not answer the last time."""
        self._observed: set[str] = set()
        """Clusters that have answered."""
        self._first_observed_s: float | None = None
        self.warm: set[str] = set()
        """Endpoints whose replicas have answered a request."""
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._retry_at_s: dict[str, float] = {}
        self.metrics: dict[str, EngineMetrics] = {}
        self.failures: dict[str, str] = {}
        """Why the last scaling of an endpoint did not work."""
        self.follow(catalogue)

    def follow(self, catalogue: Catalogue) -> None:
        """The pools of this catalogue from now on. Of endpoints that it has no more, what is known
        is forgotten; their replicas stay until somebody takes them away."""
        self._catalogue = catalogue
        clusters = {c.cluster.name: c.cluster for c in catalogue.candidates.values()}
        self._clusters = {
            name: ACTUATORS[cluster.kind](cluster, self._session)
            for name, cluster in clusters.items()
        }
        for known in (self._replicas, self._seen_s, self.metrics, self.failures):
            for endpoint in known.keys() - catalogue.candidates.keys():
                del known[endpoint]
        self.warm &= catalogue.candidates.keys()

    async def observe(self, now_s: float) -> None:
        """Refreshes everything. A source that does not answer leaves what was known, ageing."""
        if self._first_observed_s is None:
            self._first_observed_s = now_s
        await asyncio.gather(*(self._observe_cluster(name, now_s) for name in self._clusters))
        serving = self._serving()
        # Engines that are gone run nothing, whatever they said last.
        for endpoint in self.metrics.keys() - {c.endpoint for c in serving}:
            del self.metrics[endpoint]
        await asyncio.gather(*(self._observe_engine(c, now_s) for c in serving))
        for candidate in serving:
            if candidate.endpoint not in self.warm:
                self._start(f"warm {candidate.endpoint}", self._warm_up(candidate))

    def is_known(self, now_s: float) -> bool:
        """Whether every cluster has been seen, or not for so long that it counts as lost."""
        since_s = now_s if self._first_observed_s is None else self._first_observed_s
        return self._observed >= self._clusters.keys() or now_s - since_s > LOST_AFTER_S

    def ready(self, endpoint: str, now_s: float) -> int:
        """Replicas that have answered a request and were heard of lately."""
        candidate = self._catalogue.candidates[endpoint]
        if candidate.cluster.kind == "openai":
            return candidate.pool.min_replicas
        if endpoint not in self.warm or now_s - self._seen_s.get(endpoint, 0) > LOST_AFTER_S:
            return 0
        return self._replicas[endpoint].ready if endpoint in self._replicas else 0

    def replicas(self, endpoint: str) -> Replicas:
        candidate = self._catalogue.candidates[endpoint]
        if candidate.cluster.kind == "openai":
            return Replicas(ready=candidate.pool.min_replicas)
        return self._replicas.get(endpoint, Replicas())

    def set_targets(self, targets: dict[str, int], now_s: float) -> None:
        """Starts what is needed to reach the targets; idempotent."""
        for endpoint, target in targets.items():
            candidate = self._catalogue.candidates[endpoint]
            existing = self._replicas.get(endpoint)
            standing = existing.standing if existing else 0
            if candidate.cluster.kind == "openai" or standing == target:
                continue
            if target == 0:
                self.warm.discard(endpoint)
            if existing is not None and existing.stopping and standing > target:
                continue
            gave_up = existing is not None and existing.gave_up
            if existing is not None and not existing.deployed and not gave_up:
                continue
            if self._retry_at_s.get(endpoint, 0) > now_s:
                continue
            # One change of a cluster at a time: deploying reads and writes its whole configuration.
            if self._start(f"scale {candidate.cluster.name}", self._scale(candidate, target)):
                pause_s = DEPLOY_RETRY_S if gave_up else SCALE_RETRY_S
                self._retry_at_s[endpoint] = now_s + pause_s

    async def stop(self) -> None:
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    def _serving(self) -> list[Candidate]:
        return [
            candidate
            for endpoint, candidate in self._catalogue.candidates.items()
            if candidate.cluster.kind != "openai"
            and endpoint in self._replicas
            and self._replicas[endpoint].ready
        ]

    async def _observe_cluster(self, name: str, now_s: float) -> None:
        candidates = [c for c in self._catalogue.candidates.values() if c.cluster.name == name]
        try:
            async with asyncio.timeout(5):
                found = (await self._clusters[name].observe(candidates)).replicas
        except (PoolError, TimeoutError) as error:
            if name not in self._unseen:
                self._unseen.add(name)
                log.warning("cluster %s cannot be observed: %s", name, str(error) or "timeout")
            return
        if name in self._unseen:
            self._unseen.discard(name)
            log.info("cluster %s is observed again", name)
        self._observed.add(name)
        for candidate in candidates:
            endpoint = candidate.endpoint
            if endpoint not in found:
                self._replicas.pop(endpoint, None)
                self.warm.discard(endpoint)
                continue
            self._replicas[endpoint] = found[endpoint]
            self._seen_s[endpoint] = now_s
            if not found[endpoint].ready:
                self.warm.discard(endpoint)
            if found[endpoint].failed:
                self.failures[endpoint] = found[endpoint].failed or ""

    async def _observe_engine(self, candidate: Candidate, now_s: float) -> None:
        try:
            self.metrics[candidate.endpoint] = await engine_metrics(self._session, candidate.url)
            # An engine that answers is there, whatever has become of its cluster's dashboard.
            self._seen_s[candidate.endpoint] = now_s
        except PoolError:
            self.metrics.pop(candidate.endpoint, None)

    async def _warm_up(self, candidate: Candidate) -> None:
        try:
            await warm_up(self._session, candidate)
        except PoolError as error:
            log.info("not warm yet: %s", error)
        else:
            if candidate.endpoint in self._catalogue.candidates:
                self.warm.add(candidate.endpoint)
                log.info("%s serves", candidate.endpoint)

    async def _scale(self, candidate: Candidate, target: int) -> None:
        log.info("%s: scale to %d", candidate.endpoint, target)
        pools = self._clusters[candidate.cluster.name]
        try:
            await pools.scale(candidate, target, self._replicas.get(candidate.endpoint))
            self.failures.pop(candidate.endpoint, None)
        except PoolError as error:
            self.failures[candidate.endpoint] = str(error)
            log.error("%s: %s", candidate.endpoint, error)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the job was started: not while one of the same name runs."""
        if name in self._jobs and not self._jobs[name].done():
            work.close()
            return False
        self._jobs[name] = asyncio.create_task(_logged(name, work))
        return True


async def _logged(name: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("'%s' failed", name)
