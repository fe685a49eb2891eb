"""What is asked of a node's DCGM exporter, and of an engine's list of models, for sweeps alone."""

import aiohttp

from orchestrator.pools.actuator import PoolError
from orchestrator.signals import dcgm, engine

TIMEOUT_S = 5


async def gpus(session: aiohttp.ClientSession, url: str) -> list[dcgm.Gpu]:
    """The GPUs of a node. Raises PoolError."""
    try:
        return dcgm.parse(await _read(session, url))
    except ValueError as error:
        raise PoolError(f"{url}: {error}") from None


async def loaded_adapters(session: aiohttp.ClientSession, url: str) -> frozenset[str]:
    """The LoRA adapters of the engine at an endpoint's URL. Raises PoolError."""
    try:
        return engine.loaded_adapters(await _read(session, f"{url}/v1/models"))
    except ValueError as error:
        raise PoolError(f"{url}/v1/models: {error}") from None


async def _read(session: aiohttp.ClientSession, url: str) -> str:
    """Raises PoolError."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.get(url, timeout=timeout) as response:
            response.raise_for_status()
            return await response.text()
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        raise PoolError(f"{url}: {type(error).__name__}") from None
