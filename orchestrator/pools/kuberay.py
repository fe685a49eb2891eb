"""Pools of a Kubernetes cluster: each (pool, variant) is a RayService of its own.

What exists is followed by watches; what should exist is applied, one object in one call, so that
whoever dies in between leaves something whole. Nothing is kept here that the server does not know.

We own the fields that we apply and take none from others: where another manager has set one of
ours, that is an error for people to settle. KubeRay's operator and Ray's autoscaler write to
RayClusters, never to these.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import aiohttp

from orchestrator.config.spec import Cluster
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Fence, Observed, PoolError, Replicas, Unowned
from orchestrator.pools.kubernetes_api import ApiError, KubernetesApi, Unheard
from orchestrator.pools.mirror import Mirror
from orchestrator.pools.pod_states import (
    Node,
    Pod,
    RayCluster,
    Service,
    node,
    pod,
    ray_cluster,
    replicas_of,
    service,
)
from orchestrator.pools.ray_service import (
    CLUSTER,
    GROUP,
    MANAGED_BY,
    MANAGER,
    VERSION,
    label,
    ray_service,
)

FIRST_LOOK_S = 4
"""How long a look waits for everything to be listed once."""
STALE_S = 12
"""After so long without a word from the server nobody knows what exists there."""
TRIES = 4
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 2.0
THREADS = 4

T = TypeVar("T")


class KubeRayPools:
    """The pools of one namespace."""

    def __init__(
        self,
        cluster: Cluster,
        _: aiohttp.ClientSession | None = None,
        fence: Fence = lambda: None,
    ) -> None:
        assert cluster.kubernetes is not None, "checked with the configuration"
        self._namespace = cluster.kubernetes.namespace
        self._api = api = KubernetesApi(cluster.kubernetes)
        ours = f"{MANAGED_BY}={MANAGER},{CLUSTER}={label(cluster.name)}"
        self._services: Mirror[Service] = Mirror(api, self._path("rayservices"), ours, service)
        self._clusters: Mirror[RayCluster] = Mirror(
            api, self._path("rayclusters"), ours, ray_cluster
        )
        self._pods: Mirror[Pod] = Mirror(
            api, f"/api/v1/namespaces/{self._namespace}/pods", ours, pod
        )
        self._nodes: Mirror[Node] = Mirror(api, "/api/v1/nodes", "", node)
        self._mirrors: tuple[Mirror[Any], ...] = (
            self._services,
            self._clusters,
            self._pods,
            self._nodes,
        )
        self._threads = ThreadPoolExecutor(THREADS, "kubernetes")
        self._started = self._closed = False
        self._fence = fence

    async def observe(self, candidates: list[Candidate]) -> Observed:
        await self._look()
        return observed(
            candidates,
            self._services.objects(),
            self._clusters.objects(),
            self._pods.objects(),
            self._nodes.objects(),
        )

    async def scale(self, candidate: Candidate, replicas: int, existing: Replicas | None) -> None:
        """Sets the target. An endpoint of none is no RayService at all: Serve takes no deployment
        of zero replicas. What the operator has given up is taken away, to be made anew by the
        next call. Raises PoolError."""
        await self._look()
        found = {s.name: s for s in self._services.objects()}.get(candidate.service_name)
        if replicas == 0 or (found and existing and existing.abandoned and not found.deleted):
            if found is not None and not found.deleted:
                await self._delete("rayservices", found.name, found.uid)
            return
        if found is not None and found.deleted:
            raise PoolError(f"{candidate.endpoint}: its RayService is still being taken away")
        # Serve counts what is leaving until it is gone.
        body = ray_service(candidate, replicas + (existing.leaving if existing else 0))
        path = self._path("rayservices", candidate.service_name)
        try:
            await self._change(lambda: self._api.apply(path, body, MANAGER))
        except ApiError as error:
            if not _is_of_another_manager(error):
                raise
            raise PoolError(
                f"{candidate.endpoint}: another manager has set fields of RayService "
                f"{candidate.service_name}; make it give them up, or delete the RayService",
                str(error.answer.get("message")),
            ) from None

    async def release(self, name: str) -> None:
        await self._look()
        kind, _, name = name.partition("/")
        if kind == "rayservices":
            for of in (s for s in self._services.objects() if s.name == name):
                await self._delete(kind, name, of.uid)
            return
        # A watch may be ahead of another: what owns it may have been made a moment ago.
        services, _ = await self._patiently(lambda: self._api.list(self._path("rayservices")))
        owners = {s["metadata"]["uid"] for s in services}
        for cluster in (c for c in self._clusters.objects() if c.name == name):
            if cluster.owner not in owners:
                await self._delete(kind, name, cluster.uid)

    async def close(self) -> None:
        self._closed = True
        for mirror in self._mirrors:
            mirror.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._api.close()

    async def _look(self) -> None:
        """Makes sure that what the mirrors show is so. Raises PoolError."""
        if not self._started:
            self._started = True
            for mirror in self._mirrors:
                mirror.start()
        deadline_s = time.monotonic() + FIRST_LOOK_S
        for mirror in self._mirrors:
            if not mirror.listed.is_set():
                await self._in_thread(partial(mirror.listed.wait, deadline_s - time.monotonic()))
        stale = [m for m in self._mirrors if m.age_s() > STALE_S]
        if stale:
            # Some may only be quiet: what is wrong is told by those that were refused.
            known = next((m.trouble for m in stale if m.trouble), "")
            raise PoolError(known or f"{self._namespace}: nothing is heard of it")

    async def _delete(self, kind: str, name: str, uid: str) -> None:
        await self._change(lambda: self._api.delete(self._path(kind, name), uid))

    async def _change(self, ask: Callable[[], object]) -> None:
        def while_we_lead() -> None:
            self._fence()
            ask()

        await self._patiently(while_we_lead)

    async def _patiently(self, ask: Callable[[], T]) -> T:
        """Asks in a thread, again where that may help: everything asked is idempotent."""
        pause_s = FIRST_PAUSE_S
        for last in [False] * (TRIES - 1) + [True]:
            try:
                return await self._in_thread(ask)
            except Unheard:
                if last:
                    raise
                await asyncio.sleep(pause_s)
            except ApiError as error:
                if last or not _may_pass(error):
                    raise
                await asyncio.sleep(min(max(pause_s, error.retry_after_s), LONGEST_PAUSE_S))
            pause_s *= 2
        raise AssertionError("the last try returns or raises")

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        if self._closed:
            raise PoolError(f"{self._namespace}: its rules are in force no more")
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _path(self, kind: str, name: str = "") -> str:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/{kind}"
        return f"{path}/{name}" if name else path


def observed(
    candidates: Iterable[Candidate],
    services: list[Service],
    clusters: list[RayCluster],
    pods: list[Pod],
    nodes: list[Node],
) -> Observed:
    """What was found, by what the rules have. Pure."""
    notices = {n.name: n.notice for n in nodes if n.notice}
    named = {s.name: s for s in services}
    of_endpoint: dict[str, list[Pod]] = defaultdict(list)
    for found in pods:
        of_endpoint[found.endpoint].append(found)
    known: dict[str, Replicas] = {}
    owned = set()
    for candidate in candidates:
        of = named.get(candidate.service_name)
        owned.add(candidate.service_name)
        if of is not None or of_endpoint[candidate.endpoint]:
            known[candidate.endpoint] = replicas_of(of, of_endpoint[candidate.endpoint], notices)
    owners, served = {s.uid for s in services}, {s.endpoint for s in services}
    return Observed(
        known,
        [
            Unowned(
                f"rayservices/{s.name}",
                s.endpoint or None,
                s.url,
                replicas_of(s, of_endpoint[s.endpoint], notices),
            )
            for s in services
            if s.name not in owned and not s.deleted
        ]
        + [
            # Who asks for an endpoint that has another RayService does not come here.
            Unowned(f"rayclusters/{c.name}", None if c.endpoint in served else c.endpoint or None)
            for c in clusters
            if c.owner not in owners and not c.deleted
        ],
    )


def _may_pass(error: ApiError) -> bool:
    conflict = error.status == 409 and not _is_of_another_manager(error)
    return conflict or error.status == 429 or error.status >= 500


def _is_of_another_manager(error: ApiError) -> bool:
    causes = (error.answer.get("details") or {}).get("causes") or []
    return error.status == 409 and any(c.get("reason") == "FieldManagerConflict" for c in causes)
