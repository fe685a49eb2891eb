"""The controller is killed at every step of a burst, and another one comes after: nothing is left
running that nobody wants, and nothing is missing that somebody does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from orchestrator.config.spec import Configuration
from orchestrator.controller import keeper
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import Controller
from orchestrator.controller.memory import store
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.ray import RayPools
from orchestrator.signals.report import EndpointReport, GatewayReport
from tests.fake_pools import every_feed_says
from tests.fake_serve import FakeServe
from tests.integration.engines import serve
from tests.worlds import small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
HOME_APP, CLOUD_APP = "home-gpu--m-fp16", "cloud-gpu--m-fp16"
TICK_S = 10
TICKS = 24
BUSY_UNTIL = 9
"""The tick at which the load ends."""


class Killed(Exception):
    pass


@dataclass
class Points:
    """Where the controller can be killed; at the one that is chosen it is."""

    chosen: int | None = None
    passed: int = 0
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self) -> bool:
        self.passed += 1
        dies = self.passed - 1 == self.chosen
        if dies:
            self.killed.set()
        return dies


class World:
    """Two clusters, a gateway that reports each tick, and whoever is the controller."""

    def __init__(
        self, tmp_path: Path, session: aiohttp.ClientSession, points: Points, urls: list[str]
    ) -> None:
        self._path = tmp_path / "controller.json"
        self._session = session
        self._points = points
        self._urls = urls
        self.catalogue = self.rules()
        self.version = 0
        self.controller: Controller | None = None
        self.fleet: Fleet | None = None

    def rules(self, with_cloud: bool = True) -> Catalogue:
        raw: dict[str, Any] = small().configuration.model_dump(mode="json")
        raw["policy"]["snapshot_stale_s"] = TICK_S
        for cluster, url in zip(raw["clusters"], self._urls, strict=True):
            cluster |= {"url": url, "dashboard_url": url}
        if not with_cloud:
            del raw["pools"][1], raw["workloads"][0]["burst"]
            raw["models"][0]["variants"][0]["pools"] = ["home-gpu"]
        return Catalogue(Configuration.model_validate(raw), "v1" if with_cloud else "v2")

    async def tick(self, now_s: float, open_at_home: int) -> None:
        """Raises Killed."""
        if self.controller is None or self.fleet is None:
            self.fleet = Fleet(self.catalogue, self._session)
            self.controller = Controller(self.catalogue, self.fleet, self._path, now_s)
        report = GatewayReport(
            gateway_id="g",
            config_version="v1",
            snapshot_version=self.version,
            endpoints={HOME: EndpointReport(inflight=open_at_home, ttft_s=[9.0] * 20)}
            if open_at_home
            else {},
        )
        told = self.controller.exchange(report, now_s)
        self.version = told.version if told else self.version
        # The jobs that a tick has started end before the next one, or are killed.
        work = asyncio.create_task(self._tick_and_its_jobs(self.controller, self.fleet, now_s))
        killed = asyncio.create_task(self._points.killed.wait())
        try:
            await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
            if killed.done():
                raise Killed
            await work
        finally:
            for task in (work, killed):
                task.cancel()
            await asyncio.gather(work, killed, return_exceptions=True)

    @staticmethod
    async def _tick_and_its_jobs(controller: Controller, fleet: Fleet, now_s: float) -> None:
        await controller.tick(now_s)
        while fleet._jobs._jobs:
            await asyncio.sleep(0)

    async def kill(self) -> None:
        """What it had open is cut; it says no goodbye."""
        assert self.fleet is not None
        await self.fleet.stop()
        self._points.killed.clear()
        self.controller = self.fleet = None

    async def stop(self) -> None:
        if self.fleet is not None:
            await self.fleet.stop()


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    every_feed_says(monkeypatch, 2.0)


def play(
    tmp_path: Path,
    patch: pytest.MonkeyPatch,
    kill_at: int | None,
    removed_at: int | None = None,
) -> tuple[int, dict[str, int], list[str]]:
    """Points that were passed, replicas at the end and the changes that the cloud was asked for."""
    points = Points(kill_at)

    def written(path: Path, text: str, wanted: Callable[[], bool]) -> None:
        if points():
            raise Killed
        store(path, text, wanted)
        if points():
            raise Killed

    async def inside() -> tuple[int, dict[str, int], list[str]]:
        home, away = FakeServe(points), FakeServe(points)
        async with (
            serve(home.application()) as home_url,
            serve(away.application()) as away_url,
            aiohttp.ClientSession() as session,
        ):
            w = World(tmp_path, session, points, [home_url, away_url])
            seen_cloud = 0
            for number in range(TICKS):
                now_s = 1000.0 + number * TICK_S
                if number == removed_at:
                    w.catalogue = w.rules(with_cloud=False)
                    if w.controller is not None:
                        w.controller.adopt(w.catalogue)
                load = 30 if number < BUSY_UNTIL else 0
                try:
                    await w.tick(now_s, load)
                except Killed:
                    await w.kill()
                    await w.tick(now_s + TICK_S / 2, load)
                seen_cloud = max(seen_cloud, away.replicas().get(CLOUD_APP, 0))
                owned(w, home.standing() | away.standing())
            await w.stop()
            assert seen_cloud == 2, "the burst had what it needed"
            return points.passed, {**home.replicas(), **away.replicas()}, away.changes

    with patch.context() as patched:
        patched.setattr(keeper, "store", written)
        return asyncio.run(inside())


def owned(w: World, standing: set[str]) -> None:
    """Whatever stands is in somebody's books."""
    assert w.controller is not None
    state = w.controller.state()
    known = {u["name"] for u in state["unowned"]}
    known |= {f"{p}--{v}" for p, pool in state["pools"].items() for v in pool["variants"]}
    assert standing <= known


def _each(directory: Path, points: int) -> list[tuple[int, Path]]:
    made = []
    for point in range(points):
        place = directory / str(point)
        place.mkdir()
        made.append((point, place))
    return made


@pytest.mark.parametrize("removed_at", [None, 6], ids=["burst", "pool removed in the burst"])
def test_killed_at_any_step_it_leaves_no_orphan_and_the_next_one_finishes_what_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed_at: int | None
) -> None:
    at_peace = tmp_path / "at-peace"
    at_peace.mkdir()
    points, left, _ = play(at_peace, monkeypatch, None, removed_at)
    expected = {HOME_APP: 1} | ({CLOUD_APP: 0} if removed_at is None else {})
    assert left == expected
    for point, place in _each(tmp_path, points):
        _, left, changes = play(place, monkeypatch, point, removed_at)
        assert left == expected, f"killed at point {point}: {changes}"


def test_a_leader_that_lost_its_lead_between_a_look_and_a_change_changes_nothing() -> None:
    async def inside() -> None:
        leads = [True]

        def fence() -> None:
            if not leads[0]:
                raise PoolError("another controller leads")

        serve_ = FakeServe()
        status: Callable[..., Any] = serve_._status

        async def paused(request: Any) -> Any:
            leads[0] = False
            return await status(request)

        serve_._status = paused  # type: ignore[method-assign]
        async with serve(serve_.application()) as url, aiohttp.ClientSession() as session:
            candidate = small().candidates[CLOUD]
            cluster = candidate.cluster.model_copy(update={"url": url, "dashboard_url": url})
            pools = RayPools(cluster, session, fence)
            with pytest.raises(PoolError, match="another controller leads"):
                await pools.scale(candidate, 1, None)
        assert not serve_.changes

    asyncio.run(inside())
