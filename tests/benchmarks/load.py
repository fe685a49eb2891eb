"""A closed loop of clients, each asking again as soon as it has its answer."""

import asyncio
import time
from dataclasses import dataclass

import aiohttp
import numpy as np


@dataclass(frozen=True, slots=True)
class Figures:
    requests_per_s: float
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send one-token completions."""

    name: str
    base_url: str
    model: str
    api_key: str = ""


async def measure(target: Target, clients: int, requests: int) -> Figures:
    """Raises RuntimeError when an answer is not 200."""
    times_s: list[float] = []
    left = requests
    body = {"model": target.model, "prompt": "hello there", "max_tokens": 1}
    headers = {"authorization": f"Bearer {target.api_key}"} if target.api_key else {}

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started_s = time.perf_counter()
            async with session.post(url, json=body, headers=headers) as answer:
                text = await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{target.name}: {answer.status}: {text[:300]!r}")
            times_s.append(time.perf_counter() - started_s)

    url = f"{target.base_url}/v1/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        started_s = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        elapsed_s = time.perf_counter() - started_s
    return Figures(len(times_s) / elapsed_s, *(float(np.quantile(times_s, q)) for q in (0.5, 0.95)))


async def side_by_side(
    targets: list[Target], clients: int, requests: int, rounds: int
) -> dict[str, Figures]:
    """The median of rounds that take turns, after one that only warms up."""
    found: dict[str, list[Figures]] = {t.name: [] for t in targets}
    for number in range(rounds + 1):
        for target in targets:
            figures = await measure(target, clients, requests if number else requests // 4 + 1)
            if number:
                found[target.name].append(figures)
    return {
        name: Figures(
            *(
                float(np.median([getattr(f, field) for f in runs]))
                for field in ("requests_per_s", "p50_s", "p95_s")
            )
        )
        for name, runs in found.items()
    }
