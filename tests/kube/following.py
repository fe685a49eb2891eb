"""The pools of a Kubernetes cluster, as a controller follows them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import Fence, Observed
from orchestrator.pools.kuberay import KubeRayPools

SEEN_S = 10
"""How long a change may take to come through a watch."""


@asynccontextmanager
async def following(
    candidate: Candidate, fence: Fence = lambda: None
) -> AsyncIterator[KubeRayPools]:
    pools = KubeRayPools(candidate.cluster, fence=fence)
    try:
        yield pools
    finally:
        await pools.close()


async def seen(
    pools: KubeRayPools, of: dict[str, Candidate], told: Callable[[Observed], bool]
) -> Observed:
    """What is observed as soon as that is told of it."""
    deadline_s = time.monotonic() + SEEN_S
    while True:
        observed = await pools.observe(list(of.values()))
        if told(observed):
            return observed
        assert time.monotonic() < deadline_s, f"only {observed}"
        await asyncio.sleep(0.02)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def only(of: dict[str, Candidate]) -> Candidate:
    (candidate,) = of.values()
    return candidate


def replicas_are(endpoint: str, **numbers: int) -> Callable[[Observed], bool]:
    def told(observed: Observed) -> bool:
        found = observed.replicas.get(endpoint)
        return found is not None and all(getattr(found, k) == v for k, v in numbers.items())

    return told
