"""What exists: replicas by endpoint, and what their engines say."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from orchestrator.capacity.provision import Progress
from orchestrator.config.spec import Cluster
from orchestrator.controller.jobs import Jobs
from orchestrator.controller.removed import Removed, watched
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Actuator, Fence, PoolError, Replicas, Unowned
from orchestrator.pools.engine import engine_metrics, warm_up
from orchestrator.pools.kuberay import KubeRayPools
from orchestrator.pools.openai import OpenAIPools
from orchestrator.pools.ray import RayPools
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.reading import Reading

log = logging.getLogger("orchestrator.controller")

OBSERVE_TIMEOUT_S = 5
LOST_AFTER_S = 15
"""An endpoint of which nothing was heard for so long is not ready any more."""
SCALE_RETRY_S = 10

ACTUATORS: dict[str, Callable[[Cluster, aiohttp.ClientSession, Fence], Actuator]] = {
    "kuberay": KubeRayPools,
    "openai": OpenAIPools,
    "ray": RayPools,
}
"""By kind of cluster."""


class Fleet:
    """All pools of all clusters. Slow calls run beside the ticks, one per endpoint at a time."""

    def __init__(
        self, catalogue: Catalogue, session: aiohttp.ClientSession, fence: Fence = lambda: None
    ) -> None:
        self._session = session
        self._fence = fence
        self._clusters: dict[str, Actuator] = {}
        self._specs: dict[str, Cluster] = {}
        """Of all that are watched: those of the rules, and those that are removed from them."""
        self._removed = Removed()
        self.left: dict[str, str] = {}
        """Removed clusters that are watched no longer since the last look, and why."""
        self._replicas: dict[str, Replicas] = {}
        self._seen_s: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}
        """When an engine last said what it runs, or when its replicas were first seen."""
        self.unseen: dict[str, str] = {}
        """Clusters that did not answer the last time, and why."""
        self._observed: set[str] = set()
        """Clusters that have answered."""
        self._first_observed_s: float | None = None
        self.warm: set[str] = set()
        """Endpoints whose replicas have answered a request."""
        self._jobs = Jobs()
        self._retry_at_s: dict[str, float] = {}
        self.metrics: dict[str, EngineMetrics] = {}
        self.unowned: dict[str, list[Unowned]] = {}
        """By cluster, what bears our mark and belongs to no candidate."""
        self.unowned_metrics: dict[str, EngineMetrics] = {}
        """By the URL of its engine."""
        self.failures: dict[str, str] = {}
        """Why the last scaling of an endpoint did not work."""
        self.follow(catalogue)

    def follow(self, catalogue: Catalogue) -> None:
        """The pools of this catalogue from now on. Of endpoints that it has no more, what is known
        is forgotten; their replicas stay until somebody takes them away. Clusters that it has no
        more are watched until nothing of ours is left there."""
        self._catalogue = catalogue
        self._candidates: dict[str, list[Candidate]] = {}
        for candidate in catalogue.candidates.values():
            self._candidates.setdefault(candidate.cluster.name, []).append(candidate)
        specs = catalogue.clusters
        for name in [n for n, spec in self._specs.items() if specs.get(n, spec) != spec]:
            self._close(name)
        self._watch(self._specs)
        by_endpoint: tuple[dict[str, Any], ...] = (
            *(self._replicas, self._seen_s, self._heard_s, self._retry_at_s),
            *(self.metrics, self.failures),
        )
        for known in by_endpoint:
            for endpoint in known.keys() - catalogue.candidates.keys():
                del known[endpoint]
        self.warm &= catalogue.candidates.keys()

    def watch(self, clusters: Mapping[str, Cluster]) -> None:
        """Also these, as far as the rules do not have them, until nothing of ours is left there."""
        self._watch(dict(clusters) | self._specs)

    @property
    def watched(self) -> dict[str, Cluster]:
        return dict(self._specs)

    @property
    def removed(self) -> frozenset[str]:
        """Clusters that are watched and that the rules have no more."""
        return frozenset(self._specs.keys() - self._catalogue.clusters.keys())

    def _watch(self, clusters: dict[str, Cluster]) -> None:
        self._specs = specs = watched(clusters, self._catalogue.clusters)
        for name in self._clusters.keys() - specs.keys():
            self._close(name)
        for name in specs.keys() - self._clusters.keys():
            actuator = ACTUATORS[specs[name].kind]
            self._clusters[name] = actuator(specs[name], self._session, self._fence)

    def _close(self, name: str) -> None:
        self._jobs.start(f"close {name}", self._clusters.pop(name).close())
        self._observed.discard(name)
        self.unowned.pop(name, None)
        self.unseen.pop(name, None)

    async def observe(self, now_s: float) -> None:
        """Refreshes everything. A source that does not answer leaves what was known, ageing."""
        if self._first_observed_s is None:
            self._first_observed_s = now_s
        await self._jobs.look(
            {f"look {n}": self._observe_cluster(n, now_s) for n in self._clusters}
        )
        self._removed.follow(self.removed, now_s)
        self.left = self._removed.over(now_s)
        for name in self.left:
            self._close(name)
            del self._specs[name]
        serving = self._serving()
        # Engines that are gone run nothing, whatever they said last.
        for endpoint in self._heard_s.keys() - {c.endpoint for c in serving}:
            del self._heard_s[endpoint]
            self.metrics.pop(endpoint, None)
        for candidate in serving:
            self._heard_s.setdefault(candidate.endpoint, now_s)
        strays = {u.url for found in self.unowned.values() for u in found if u.url is not None}
        for url in self.unowned_metrics.keys() - strays:
            del self.unowned_metrics[url]
        await self._jobs.look(
            {f"ask {c.endpoint}": self._observe_engine(c, now_s) for c in serving}
            | {f"ask {url}": self._observe_unowned(url) for url in strays}
        )
        for candidate in serving:
            if candidate.endpoint not in self.warm:
                self._jobs.start(f"warm {candidate.endpoint}", self._warm_up(candidate))

    def is_known(self, now_s: float) -> bool:
        """Whether every cluster with pools has been seen, or not for so long that it counts as
        lost."""
        since_s = now_s if self._first_observed_s is None else self._first_observed_s
        return self._observed >= self._candidates.keys() or now_s - since_s > LOST_AFTER_S

    def ready(self, endpoint: str, now_s: float) -> int:
        """Replicas that have answered a request and were heard of lately."""
        replicas = self.replicas(endpoint)
        if self._is_ours(endpoint) and (
            endpoint not in self.warm or now_s - self._seen_s.get(endpoint, 0) > LOST_AFTER_S
        ):
            return 0
        return replicas.ready

    @property
    def session(self) -> aiohttp.ClientSession:
        return self._session

    def seen_s(self, endpoint: str) -> float | None:
        """When something was last heard of it."""
        return self._seen_s.get(endpoint)

    def heard(self, endpoint: str) -> Reading[EngineMetrics] | None:
        """What its engine said last; None where it did not answer the last time."""
        metrics = self.metrics.get(endpoint)
        return None if metrics is None else Reading(metrics, self._heard_s[endpoint])

    def replicas(self, endpoint: str) -> Replicas:
        candidate = self._catalogue.candidates[endpoint]
        if candidate.cluster.kind == "openai":
            return Replicas(ready=candidate.pool.min_replicas)
        return self._replicas.get(endpoint, Replicas())

    def progress(self, endpoint: str) -> Progress | None:
        """None where there is nothing to say of its scale-ups."""
        existing = self._replicas.get(endpoint)
        failed = (existing.failed if existing else None) or self.failures.get(endpoint)
        if failed is None:
            return None
        return Progress(failed, existing is not None and existing.abandoned)

    def unheard(self, now_s: float, limit_s: float) -> frozenset[str]:
        """Endpoints with replicas whose engine does not say what it runs; not for longer than the
        limit, after which it is taken for dead."""
        return frozenset(
            endpoint
            for endpoint, heard_s in self._heard_s.items()
            if endpoint not in self.metrics and now_s - heard_s <= limit_s
        )

    @property
    def calls(self) -> int:
        """Made of clusters and engines since the beginning."""
        return self._jobs.started

    def set_targets(
        self, targets: Mapping[str, int], given_up: frozenset[str], now_s: float
    ) -> list[str]:
        """Starts what is needed to reach the targets, but asks for nothing more of endpoints that
        are given up; idempotent. Returns the endpoints that it is started for."""
        started = []
        for endpoint, target in targets.items():
            candidate = self._catalogue.candidates[endpoint]
            existing = self._replicas.get(endpoint)
            standing = existing.standing if existing else 0
            if not self._is_ours(endpoint) or standing == target:
                continue
            if target == 0:
                self.warm.discard(endpoint)
            if target > standing and endpoint in given_up:
                continue
            if existing is not None:
                if existing.stopping and standing > target:
                    continue
                if not existing.deployed and not existing.abandoned:
                    continue
            if self._retry_at_s.get(endpoint, 0) > now_s:
                continue
            if self._jobs.start(f"scale {endpoint}", self._scale(candidate, target)):
                self._retry_at_s[endpoint] = now_s + SCALE_RETRY_S
                started.append(endpoint)
        return started

    def release(self, cluster: str, name: str) -> bool:
        """Whether it was begun to take away what is unowned there: not while it is under way."""
        pools = self._clusters.get(cluster)
        return pools is not None and self._jobs.start(
            f"release {cluster}/{name}", self._release(cluster, pools, name)
        )

    async def stop(self) -> None:
        """Ends every job at its next await."""
        await self._jobs.stop()
        await asyncio.gather(*(pools.close() for pools in self._clusters.values()))

    def _is_ours(self, endpoint: str) -> bool:
        return self._catalogue.candidates[endpoint].cluster.kind != "openai"

    def _serving(self) -> list[Candidate]:
        return [
            candidate
            for endpoint, candidate in self._catalogue.candidates.items()
            if self._is_ours(endpoint)
            and endpoint in self._replicas
            and self._replicas[endpoint].ready + self._replicas[endpoint].leaving
        ]

    async def _observe_cluster(self, name: str, now_s: float) -> None:
        candidates, pools = self._candidates.get(name, []), self._clusters[name]
        try:
            async with asyncio.timeout(OBSERVE_TIMEOUT_S):
                observed = await pools.observe(candidates)
        except (PoolError, TimeoutError) as error:
            if self._clusters.get(name) is pools:
                self.unseen[name] = error.summary if isinstance(error, PoolError) else "timeout"
            return
        if self._clusters.get(name) is not pools:
            return
        self.unseen.pop(name, None)
        self._observed.add(name)
        self._removed.seen(name, bool(observed.unowned), now_s)
        found, self.unowned[name] = observed.replicas, observed.unowned
        for candidate in candidates:
            endpoint = candidate.endpoint
            if endpoint not in self._catalogue.candidates:
                continue
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
            elif found[endpoint].ready:
                self.failures.pop(endpoint, None)

    async def _observe_engine(self, candidate: Candidate, now_s: float) -> None:
        endpoint = candidate.endpoint
        try:
            found = await engine_metrics(self._session, candidate.url)
        except PoolError:
            self.metrics.pop(endpoint, None)
        else:
            if endpoint in self._heard_s:
                self.metrics[endpoint] = found
                # An engine that answers is there, whatever has become of its cluster's dashboard.
                self._seen_s[endpoint] = self._heard_s[endpoint] = now_s

    async def _observe_unowned(self, url: str) -> None:
        try:
            self.unowned_metrics[url] = await engine_metrics(self._session, url)
        except PoolError:
            self.unowned_metrics.pop(url, None)

    async def _warm_up(self, candidate: Candidate) -> None:
        try:
            await warm_up(self._session, candidate)
        except PoolError as error:
            log.info("not warm yet: %s", error.summary)
        else:
            if candidate.endpoint in self._catalogue.candidates:
                self.warm.add(candidate.endpoint)
                log.info("%s serves", candidate.endpoint)

    async def _scale(self, candidate: Candidate, target: int) -> None:
        pools = self._clusters[candidate.cluster.name]
        try:
            await pools.scale(candidate, target, self._replicas.get(candidate.endpoint))
            self.failures.pop(candidate.endpoint, None)
        except PoolError as error:
            self.failures[candidate.endpoint] = str(error)
            log.error("%s: %s", candidate.endpoint, error.summary)

    async def _release(self, cluster: str, pools: Actuator, name: str) -> None:
        try:
            await pools.release(name)
        except PoolError as error:
            log.error("%s in cluster %s is not released: %s", name, cluster, error.summary)
