"""The gateway as an ordinary Serve ingress, its bytes carried by HAProxy and Serve's replica: the
baseline of the socket that it owns."""

from pathlib import Path
from typing import Any

import aiohttp
from ray import serve
from ray.serve import Application

from orchestrator.config.load import Loaded
from orchestrator.gateway.app import Gateway
from orchestrator.pools.ray import RayPools
from orchestrator.stack.up import gateway_application


@serve.deployment(max_ongoing_requests=2000)
@serve.ingress()
class IngressDeployment:
    def __init__(self, state: str) -> None:
        self._gateway = Gateway(Path(state))

    async def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway


def build(args: dict[str, Any]) -> Application:
    return IngressDeployment.bind(args["state"])  # type: ignore[attr-defined]


async def deploy(loaded: Loaded, state: Path, cluster_name: str = "ours") -> None:
    """On a cluster that is up. It answers at the cluster's own URL."""
    application = gateway_application(loaded, state) | {
        "name": "ingress",
        "route_prefix": "/",
        "import_path": "tests.benchmarks.ingress:build",
        "deployments": [],
    }
    application["logging_config"] = {"enable_access_log": False}
    cluster = next(c for c in loaded.configuration.clusters if c.name == cluster_name)
    async with aiohttp.ClientSession() as session:
        await RayPools(cluster, session).deploy([application])
