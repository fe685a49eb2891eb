"""The vLLM server of a replica, on the processors that its cluster was given."""

import os
from typing import Any

import psutil
from ray.llm._internal.serve.core.server.llm_server import LLMServer as RayLLMServer

from orchestrator.pools.ray import ENGINE_CPUS


class LLMServer(RayLLMServer):  # type: ignore[misc]
    """Pins itself before the engine starts, so that the engine's processes inherit it.

    Named like its parent, since Serve names the deployment after it. Pinned, since two engines
    that share every core of a laptop share one capacity: a second replica would relieve nothing.
    """

    async def __init__(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[misc]
        cpus = [int(c) for c in os.environ.get(ENGINE_CPUS, "").split(",") if c]
        if cpus:
            psutil.Process().cpu_affinity([c for c in cpus if c < (os.cpu_count() or 1)] or None)
        await super().__init__(*args, **kwargs)
