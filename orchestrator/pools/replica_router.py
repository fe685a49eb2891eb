"""Ray Serve's request router for direct-streaming endpoints with several replicas.

Ray's own cannot serve there: its front asks for a replica without sending the request through the
router, so `PrefixCacheAffinityRouter` never learns what it routed and prefers one replica for good;
`ConsistentHashRouter` knows no load, and the default, round robin, neither load nor prefixes.
"""

import asyncio

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from orchestrator.pools.prefix_cache import PrefixCache
from orchestrator.signals.prefixes import decode

PROBE_INTERVAL_S = 0.05
PROBE_TIMEOUT_S = 1.0


class PrefixLoadRouter(RequestRouter):  # type: ignore[misc]
    """By cached prefixes and load; see `PrefixCache`. All requests of an endpoint pass one."""

    def initialize_state(self, slack: int = 1) -> None:
        self._cache = PrefixCache(slack)
        self._running: dict[str, RunningReplica] = {}
        self._loads: dict[str, int] = {}
        self._watch: asyncio.Task[None] | None = None

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._running = {replica.replica_id.unique_id: replica for replica in replicas}
        self._loads = {name: self._loads.get(name, 0) for name in self._running}
        self._cache.keep(list(self._running))

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """One replica a rank, best first."""
        replicas = {r.replica_id.unique_id: r for r in candidate_replicas}
        beginnings = decode(pending_request.metadata.session_id) if pending_request else []
        ranked = self._cache.rank({name: self._loads.get(name, 0) for name in replicas}, beginnings)
        if ranked:
            self._took(ranked[0], beginnings)
        return [[replicas[name]] for name in ranked]

    def _took(self, replica: str, beginnings: list[int]) -> None:
        self._cache.sent(replica, beginnings)
        # Until the replica itself says so.
        self._loads[replica] = self._loads.get(replica, 0) + 1
        if len(self._running) > 1 and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._watch_loads())

    async def _watch_loads(self) -> None:
        """Nobody tells when a request ends, so replicas with requests are asked for their number.

        Serve counts what came through the front like any other.
        """
        while any(self._loads.values()):
            await asyncio.sleep(PROBE_INTERVAL_S)
            await asyncio.gather(*(self._ask(*item) for item in self._running.items()))

    async def _ask(self, name: str, replica: RunningReplica) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                load = await replica.get_queue_len(deadline_s=PROBE_TIMEOUT_S)
        except Exception:  # Serve drops replicas that died; until then the last answer stands
            return
        if name in self._running:
            self._loads[name] = load
