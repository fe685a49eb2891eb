"""From exporters to the command line: zombies that a controller finds, reports and gives back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from orchestrator.cli.app import app as commands
from orchestrator.config.spec import Configuration
from orchestrator.controller.events import EventKind
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, Hold
from orchestrator.pools.actuator import Replicas, Unowned
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.report import GatewayReport
from tests.fake_pools import FakeCluster
from tests.unit.test_config import copy
from tests.worlds import small
from tests.zombies.expositions import Card, dcgm, models

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
QUIET = EngineMetrics(0, 0, success=5, prompt_tokens=70, generation_tokens=30, started_s=1)
OLD = Unowned(
    "cloud-gpu--old",
    "cloud-gpu/old",
    "http://127.0.0.1:8001/pools/cloud-gpu/old",
    Replicas(ready=1),
)
GHOST = Card(util=100, used=0)


class Company:
    """A controller over fake clusters, an exporter and an engine's list of models that are real."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = FakeCluster(monkeypatch)
        self.cluster.replicas = {HOME: Replicas(ready=1)}
        self.cluster.metrics = {HOME: QUIET, CLOUD: QUIET}
        self.exporter: str | None = None
        self.listed = models("m")
        self.now_s = time.time() - 3600
        self.gateway = True
        self._state = tmp_path
        self._session: aiohttp.ClientSession
        self._exporters: TestServer

    async def open(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        exporters = web.Application()
        exporters.router.add_get("/metrics", self._metrics)
        exporters.router.add_get("/pools/{pool}/{variant}/v1/models", self._models)
        self._exporters = TestServer(exporters)
        await self._exporters.start_server()
        self.controller = self.start()

    async def close(self) -> None:
        await self._exporters.close()

    def start(self, mode: str = "active", idle: str = "report", min_cloud: int = 0) -> Controller:
        """Another controller, in place of the one before."""
        url = str(self._exporters.make_url("")).rstrip("/")
        c = small().configuration.model_dump()
        c["clusters"][1] |= {"dcgm_urls": [f"{url}/metrics"], "url": url}
        c["pools"][1] |= {
            "price": {"fixed_usd_per_gpu_hour": 2.0},
            "owner": "cloud-team",
            "min_replicas": min_cloud,
            "max_replicas": 4,
        }
        c["price_feeds"] = []
        burst = c["workloads"][0]["burst"]
        burst |= {"ttft_p95_s": None, "queue_per_replica": None, "usd_per_gpu_hour_below": 50}
        c["controller"]["mode"] = mode
        c["zombies"] = {"idle": idle, "idle_after_s": 300, "notice_s": 120}
        rules = Catalogue(Configuration.model_validate(c), "v1")
        path = self._state / "controller.json"
        self.controller = Controller(rules, Fleet(rules, self._session), path, self.now_s)
        return self.controller

    async def live(self, minutes: float) -> None:
        for _ in range(int(minutes * 2)):
            await self.controller.tick(self.now_s)
            if self.gateway:
                version = self.controller.snapshot.version
                report = GatewayReport(
                    gateway_id="g", config_version="v1", snapshot_version=version
                )
                self.controller.exchange(report, self.now_s)
            await asyncio.sleep(0)
            await self.controller.sweep(self.now_s)
            self.now_s += 30

    async def live_until_now(self) -> None:
        while self.now_s < time.time() - 30:
            await self.live(0.5)
        # A gateway that has not reported for some seconds is silent.
        self.now_s = time.time()
        await self.live(0.5)

    def found(self) -> dict[str, dict[str, Any]]:
        return {z["subject"]: z for z in self.controller.zombies()["zombies"]}

    def said(self) -> list[str]:
        events = self.controller.events.after(0)
        return [f"{e.subject} {e.what}" for e in events if e.kind is EventKind.ZOMBIE]

    async def _metrics(self, _: web.Request) -> web.Response:
        if self.exporter is None:
            raise web.HTTPServiceUnavailable
        return web.Response(text=self.exporter)

    async def _models(self, _: web.Request) -> web.Response:
        return web.Response(text=self.listed, content_type="application/json")


Run = Callable[[Callable[[Company], Any]], None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Company]:
        company = Company(tmp_path, monkeypatch)
        async with aiohttp.ClientSession() as session:
            await company.open(session)
            try:
                yield company
            finally:
                await company.close()

    async def inside(test: Callable[[Company], Any]) -> None:
        async with opened() as company:
            await test(company)

    return lambda test: asyncio.run(inside(test))


def test_a_quiet_fleet_has_no_zombies(run: Run) -> None:
    async def test(company: Company) -> None:
        company.exporter = dcgm(Card(util=98, used=40_000))
        await company.live(20)
        assert company.found() == {}
        assert company.said() == []

    run(test)


def test_burst_replicas_that_nobody_uses_are_found_and_told_once(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=2)
        await company.live(15)
        zombie = company.found()[CLOUD]
        assert (zombie["kind"], zombie["replicas"], zombie["owner"]) == ("idle", 2, "cloud-team")
        minutes = (company.now_s - 30 - zombie["since_s"]) / 60
        assert zombie["cost_usd"] == pytest.approx(2 * 2.0 * minutes / 60)
        assert company.said() == [f"{CLOUD} is a zombie (idle)"]
        assert company.controller.state()["bursts"]["assistant"]["state"] == "bursting"

    run(test)


def test_by_policy_a_burst_without_work_is_released_after_its_notice(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=2)
        company.start(idle="reclaim")
        await company.live(7.5)
        assert company.said() == [f"{CLOUD} is a zombie (idle)"]
        await company.live(2)
        assert company.said()[1:] == [f"{CLOUD} is given back"]
        burst = company.controller.state()["bursts"]["assistant"]
        assert burst["state"] in (BurstPhase.DRAINING, BurstPhase.HOME)
        assert (CLOUD, 0) in company.cluster.scaled

    run(test)


def test_by_policy_what_is_declared_stays(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=3)
        company.start(idle="reclaim", min_cloud=1)
        await company.live(12)
        assert {n for e, n in company.cluster.scaled if e == CLOUD} == {1}

    run(test)


def test_a_pool_that_is_held_a_forced_burst_and_a_silent_gateway_make_no_zombies(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=2)
        await company.controller.hold("cloud-gpu", Hold.DRAINED)
        await company.live(15)
        assert company.found() == {}
        await company.controller.hold("cloud-gpu", None)
        company.gateway = False  # two replicas: only the gateways could tell that both are idle
        await company.live(15)
        assert company.found() == {}

    run(test)


def test_in_advisory_mode_everything_is_found_and_nothing_given_back(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=2)
        company.start(mode="advisory", idle="reclaim")
        await company.live_until_now()
        assert list(company.found()) == [CLOUD]
        (answer,) = await company.controller.reclaim([CLOUD], dry_run=False)
        assert "advisory" in answer["obstacle"]
        assert company.cluster.scaled == []

    run(test)


def test_a_ghost_in_the_exporters_answers_is_found_and_a_lost_exporter_is_not_one(run: Run) -> None:
    async def test(company: Company) -> None:
        company.exporter = dcgm(GHOST)
        await company.live(3)
        company.exporter = None
        await company.live(15)
        assert company.found() == {}
        company.exporter = dcgm(GHOST)
        await company.live(6)
        assert [z["kind"] for z in company.found().values()] == ["ghost"]
        assert company.found()[GHOST.name]["pool"] == "cloud-gpu"

    run(test)


def test_an_adapter_that_the_engine_lists_and_nobody_declares_is_found(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=1)
        company.cluster.metrics[CLOUD] = EngineMetrics(1, 0, success=5)
        company.listed = models("m", "left-over")
        await company.live(12)
        assert list(company.found()) == [f"{CLOUD}#left-over"]

    run(test)


def test_an_orphan_of_which_nobody_knows_whether_it_serves_is_found_and_left(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.unowned = [OLD]
        await company.live(5)
        zombie = company.found()["away/cloud-gpu--old"]
        assert (zombie["kind"], zombie["pool"], zombie["replicas"]) == ("orphan", "cloud-gpu", 1)
        assert zombie["obstacle"] == zombie["doubt"]
        assert company.cluster.released == []

    run(test)


def test_a_controller_that_comes_after_goes_on_with_the_notes(run: Run) -> None:
    async def test(company: Company) -> None:
        company.cluster.replicas[CLOUD] = Replicas(ready=1)
        await company.live(10)
        before = company.found()[CLOUD]
        assert company.said() == [f"{CLOUD} is a zombie (idle)"]
        company.start()
        await company.live(1)
        after = company.found()[CLOUD]
        assert after["since_s"] == before["since_s"]
        assert after["cost_usd"] > before["cost_usd"]
        assert company.said() == []  # it has been told

    run(test)


def test_at_the_command_line_zombies_are_listed_and_given_back_on_demand_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "t")
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path))
    (tmp_path / "source").mkdir()
    source = copy(tmp_path / "source")
    settings = source / "settings.yaml"

    async def ask(*arguments: str, code: int = 0) -> str:
        line = ["zombies", *arguments, "--config", str(source)]
        result = await asyncio.to_thread(CliRunner().invoke, commands, line)
        assert result.exit_code == code, result.output
        return result.output

    async def test(company: Company) -> None:
        server = TestServer(application(lambda: company.controller))
        await server.start_server()
        settings.write_text(settings.read_text().replace(":8100", f":{server.port}"))
        company.start(mode="advisory")
        company.cluster.unowned = [
            Unowned("cloud-gpu--old", "cloud-gpu/old", None, Replicas(starting=1))
        ]
        await company.live_until_now()
        subject = "away/cloud-gpu--old"

        listed = await ask()
        assert f"orchestrator zombies {subject} --reclaim --no-dry-run" in listed
        (zombie,) = json.loads(await ask("--json"))["zombies"]
        assert (zombie["subject"], zombie["obstacle"]) == (subject, None)

        assert "would be given back" in await ask(subject, "--reclaim")
        assert company.cluster.released == []
        assert "is given back" in await ask(subject, "--reclaim", "--no-dry-run")
        await asyncio.sleep(0)
        assert company.cluster.released == ["cloud-gpu--old"]

        assert "no zombie 'nobody'" in await ask("nobody", code=2)
        assert "no zombie 'nobody'" in await ask("nobody", "--reclaim", code=2)
        await server.close()
        assert "no controller answers" in await ask(code=1)

    run(test)
