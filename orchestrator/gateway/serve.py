"""The gateway as a Ray Serve application.

Serve places, watches, replaces and counts the replicas; it does not carry their bytes, which would
cost more than the whole relay. Each replica listens on the gateway's own port, shared on a node.
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.collector import settle
from orchestrator.gateway.server import listen, server

START_TIMEOUT_S = 30


@serve.deployment
class GatewayDeployment:
    """One gateway with its server, in a thread and an event loop of its own."""

    def __init__(self, state: str) -> None:
        """Raises what `Gateway` raises, and OSError for a port in use."""
        gateway = Gateway(Path(state))
        settle()
        self._server = server(gateway)
        listener = listen(gateway.spec.url)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="gateway", daemon=True
        )
        self._thread.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline_s:
                raise RuntimeError("the gateway's server did not start; see the replica's log")
            time.sleep(0.01)

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        if not self._thread.is_alive():
            raise RuntimeError("the gateway's server has ended")

    async def __del__(self) -> None:
        """Serve's graceful shutdown: no new connections, and open answers end whole."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)


def build(args: dict[str, Any]) -> Application:
    """Serve's application builder. `args`: `state`, an absolute path."""
    return GatewayDeployment.bind(args["state"])  # type: ignore[attr-defined]
