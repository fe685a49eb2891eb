"""Scales an endpoint from none to three and back, for a test that kills it on its way."""

import asyncio
import sys

from orchestrator.pools import kubernetes_api
from orchestrator.pools.actuator import Replicas
from orchestrator.pools.kuberay import KubeRayPools
from tests.kube.worlds import candidates


async def main(namespace: str) -> None:
    (chat,) = candidates(namespace).values()
    pools = KubeRayPools(chat.cluster)
    await pools.scale(chat, 1, None)
    await pools.scale(chat, 3, Replicas(starting=1))
    while chat.endpoint not in (await pools.observe([chat])).replicas:
        await asyncio.sleep(0.02)
    await pools.scale(chat, 0, Replicas(starting=3))


if __name__ == "__main__":
    # The test says when it ends.
    kubernetes_api.READ_S = 600
    asyncio.run(main(sys.argv[1]))
