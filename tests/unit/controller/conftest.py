"""A controller over a fake cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Replicas
from tests.fake_pools import FakeCluster, every_feed_says
from tests.unit.controller.world import HOME, SMALL, Make


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Make, FakeCluster], Awaitable[None]]], None]:
    cluster = FakeCluster(monkeypatch)
    cluster.replicas = {HOME: Replicas(ready=1)}

    async def inside(test: Callable[[Make, FakeCluster], Awaitable[None]]) -> None:
        async with aiohttp.ClientSession() as session:

            def make(now_s: float, catalogue: Catalogue = SMALL) -> Controller:
                fleet = Fleet(catalogue, session)
                path = tmp_path / "controller.json"
                return Controller(catalogue, fleet, path, now_s, leads=lambda: cluster.leads)

            await test(make, cluster)

    return lambda test: asyncio.run(inside(test))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every feed says 2 USD."""
    every_feed_says(monkeypatch, 2.0)
