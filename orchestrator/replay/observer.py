"""What the controller says while a replay runs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

PERIOD_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    """Seconds since the replay began."""
    state: dict[str, Any]
    """The controller's `/v1/state`."""


class Observer:
    """Samples the controller until cancelled. One that does not answer leaves a gap."""

    def __init__(self, controller_url: str, token: str, clock: Callable[[], float]) -> None:
        self._url = f"{controller_url}/v1/state"
        self._headers = {"authorization": f"Bearer {token}"}
        self._clock = clock
        self.samples: list[Sample] = []

    @property
    def latest(self) -> dict[str, Any] | None:
        return self.samples[-1].state if self.samples else None

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            while True:
                try:
                    async with session.get(self._url) as response:
                        response.raise_for_status()
                        self.samples.append(Sample(self._clock(), await response.json()))
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    pass
                await asyncio.sleep(PERIOD_S)
