"""The gateway as an ordinary Serve ingress, its bytes carried by HAProxy and Serve's replica: the
baseline of the socket that it owns."""

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from orchestrator.gateway.app import Gateway


@serve.deployment(max_ongoing_requests=2000)
@serve.ingress()
class IngressDeployment:
    def __init__(self, state: str) -> None:
        self._gateway = Gateway(Path(state))

    async def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway


def build(args: dict[str, Any]) -> Application:
    return IngressDeployment.bind(args["state"])  # type: ignore[attr-defined]
