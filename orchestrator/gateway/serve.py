"""The gateway as a Ray Serve application."""

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from orchestrator.gateway.app import Gateway


@serve.deployment
@serve.ingress()
class GatewayDeployment:
    """Owns one gateway; Serve calls the ASGI application that it builds."""

    def __init__(self, directory: str, ledger: str) -> None:
        self._gateway = Gateway(Path(directory), Path(ledger))

    async def __serve_build_asgi_app__(self) -> Gateway:
        await self._gateway.start()
        return self._gateway


def build(args: dict[str, Any]) -> Application:
    """Serve's application builder. `args`: `directory` and `ledger`, absolute paths."""
    return GatewayDeployment.bind(args["directory"], args["ledger"])  # type: ignore[attr-defined]
