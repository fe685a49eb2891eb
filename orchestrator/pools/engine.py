"""What is asked of a vLLM engine itself, in a cluster of any kind: its metrics, a first answer."""

from typing import Any

import aiohttp

from orchestrator.policy.candidate import Candidate
from orchestrator.pools.actuator import PoolError
from orchestrator.signals.engine import EngineMetrics, parse

METRICS_TIMEOUT_S = 5
WARM_UP_TIMEOUT_S = 60


async def engine_metrics(session: aiohttp.ClientSession, url: str) -> EngineMetrics:
    """What the engine at an endpoint's URL says of itself. Raises PoolError."""
    timeout = aiohttp.ClientTimeout(total=METRICS_TIMEOUT_S)
    try:
        async with session.get(f"{url}/metrics", timeout=timeout) as response:
            response.raise_for_status()
            return parse(await response.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise PoolError(f"{url}/metrics: {type(error).__name__}") from None


async def warm_up(session: aiohttp.ClientSession, candidate: Candidate) -> None:
    """One answer: a replica serves when it has given one, not when it says so.

    Raises PoolError.
    """
    body: dict[str, Any] = {"model": served_name(candidate)}
    if candidate.variant.task == "generate":
        path, body = "/v1/completions", {**body, "prompt": "warm-up", "max_tokens": 1}
    else:
        path, body = "/pooling", {**body, "input": "warm-up"}
    try:
        async with session.post(
            candidate.url + path,
            json=body,
            headers={"x-request-id": "warm-up"},
            timeout=aiohttp.ClientTimeout(total=WARM_UP_TIMEOUT_S),
        ) as response:
            if response.status != 200:
                raise PoolError(f"{candidate.endpoint}: warm-up got {response.status}")
            await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PoolError(f"{candidate.endpoint}: {type(error).__name__}") from None


def served_name(candidate: Candidate) -> str:
    """What gateways ask the endpoint for."""
    return candidate.variant.served_name or candidate.model.name
