"""One of several controllers: whoever leads brings an endpoint to a number, one replica a step."""

import asyncio
import sys

from orchestrator.controller.kubernetes_lease import connect
from orchestrator.controller.lease import campaign, fence
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.kuberay import KubeRayPools
from tests.kube.worlds import candidates

STEP_S = 0.5


async def main(namespace: str, name: str, target: int) -> None:
    (chat,) = candidates(namespace).values()
    lease = connect(f"{namespace}/controller", name)

    async def lead() -> None:
        pools = KubeRayPools(chat.cluster, fence=fence(lease))
        try:
            while True:
                try:
                    existing = (await pools.observe([chat])).replicas.get(chat.endpoint)
                    standing = existing.standing if existing else 0
                    if standing != target:
                        step = 1 if standing < target else -1
                        await pools.scale(chat, standing + step, existing)
                except PoolError as error:
                    print(name, error, flush=True)
                await asyncio.sleep(STEP_S)
        finally:
            await pools.close()

    await campaign(lease, lambda: asyncio.create_task(lead()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
