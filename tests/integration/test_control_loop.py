"""Controller and gateway together over real HTTP: bursts, prices, and life without a controller.

The pools are simulated engines, which nobody scales; scaling is for the tests with real Ray.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.load import load
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from tests.integration.engines import PLACES, samples, serve_engine, serve_gateway

TOKEN = "a-token"
CONTENT = {"assistant": "hello", "records": "confidential", "new": "hello"}
HOME = EngineSpec("m", ttft_s=0.05, itl_s=0.005, max_num_seqs=2)
AWAY = EngineSpec("m", ttft_s=0.05, itl_s=0.005, max_num_seqs=64)

CONFIG = (
    PLACES
    + """
pools:
  - name: home-gpu
    cluster: home
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{fixed_usd_per_gpu_hour: 1}}
  - name: cloud-gpu
    cluster: away
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{feed: market}}
price_feeds:
  - {{name: market, file: market.csv, refresh_s: 0.2}}
models:
  - name: m
    variants:
      - name: m-1
        weights: org/m
        pools: [home-gpu, cloud-gpu]
        max_model_len: 4096
        max_num_seqs: 2
workloads:
  - name: assistant
    data_class: internal
    models: [m]
    allowed_zones: [onprem, cloud]
    slo: {{ttft_p95_s: 1}}
    price_ceiling: {{usd_per_gpu_hour: 3}}
    burst:
      pools: [cloud-gpu]
      ttft_p95_s: 0.4
      sustained_s: 0.3
      release_sustained_s: 0.3
      min_dwell_s: 1
      cooldown_s: 1
  - name: records
    data_class: restricted
    models: [m]
    allowed_zones: [onprem]
    slo: {{ttft_p95_s: 1}}
policy: {{snapshot_stale_s: 2}}
gateway: {{url: "http://127.0.0.1:1", cluster: serve}}
controller: {{url: "http://127.0.0.1:{port}", tick_s: 0.1, window_s: 1}}
"""
)


@dataclass
class World:
    directory: Path
    url: str
    controller: Controller
    stop_controller: Callable[[], Awaitable[None]]
    home: SimulatedEngine
    away: SimulatedEngine
    session: aiohttp.ClientSession
    keys: dict[str, str]

    async def ask(self, workload: str, output_tokens: int = 20) -> tuple[int, str]:
        """The status, and the pool that answered."""
        async with self.session.post(
            f"{self.url}/v1/chat/completions",
            json={
                "model": "m",
                "messages": [{"role": "user", "content": CONTENT[workload]}],
                "max_tokens": output_tokens,
                "stream": True,
            },
            headers={"authorization": f"Bearer {self.keys[workload]}"},
        ) as answer:
            text = await answer.text()
            assert answer.status != 200 or text.endswith("data: [DONE]\n\n")
            return answer.status, answer.headers.get("x-orchestrator-pool", "")

    async def pools(self, workload: str) -> set[str]:
        """That answer some requests at once."""
        answers = await asyncio.gather(*(self.ask(workload) for _ in range(8)))
        assert {status for status, _ in answers} == {200}
        return {pool for _, pool in answers}

    def burst(self) -> dict[str, Any]:
        state: dict[str, Any] = self.controller.state()["bursts"]["assistant"]
        return state

    async def published(self) -> None:
        """Until the gateway decides on what the controller knows now."""
        version = self.controller.snapshot.version
        async with asyncio.timeout(5):
            while self._gateways_snapshot(await self._metrics()) < version:
                await asyncio.sleep(0.02)

    async def _metrics(self) -> str:
        async with self.session.get(f"{self.url}/metrics") as answer:
            return await answer.text()

    @staticmethod
    def _gateways_snapshot(metrics: str) -> float:
        ((_, version),) = samples(metrics, "orchestrator_snapshot_version")
        return version

    async def until(self, state: str, wait_s: float = 10) -> None:
        async with asyncio.timeout(wait_s):
            while self.burst()["state"] != state:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def world(tmp_path: Path, usd: float, port: int) -> AsyncIterator[World]:
    home, away = SimulatedEngine(HOME, remember=True), SimulatedEngine(AWAY, remember=True)
    async with serve_engine(home) as home_url, serve_engine(away) as away_url:
        text = CONFIG.format(home=home_url, away=away_url, port=port)
        (tmp_path / "all.yaml").write_text(text)
        (tmp_path / "market.csv").write_text(f"time_s,usd_per_gpu_hour\n0,{usd}\n")
        plain = {name: keys.create(tmp_path, name)[1] for name in ("assistant", "records")}
        loaded = load(tmp_path)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        async with aiohttp.ClientSession() as session:
            controller = Controller(
                catalogue, Fleet(catalogue, session), tmp_path / "memory.json", time.time()
            )
            runner = web.AppRunner(application(lambda: controller), shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            ticking = asyncio.create_task(controller.run())
            while controller.published() is None:
                await asyncio.sleep(0.01)

            async def stop() -> None:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
                await runner.cleanup()

            try:
                async with serve_gateway(tmp_path) as url:
                    yield World(tmp_path, url, controller, stop, home, away, session, plain)
            finally:
                await stop()


def run(tmp_path: Path, port: int, test: Callable[[World], Awaitable[None]], usd: float) -> None:
    async def inside() -> None:
        async with world(tmp_path, usd, port) as made:
            await test(made)

    asyncio.run(inside())


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", TOKEN)


async def load_home(w: World, requests: int = 30) -> list[tuple[int, str]]:
    """More than home holds; every fourth is restricted."""
    workloads = ["records" if n % 4 == 0 else "assistant" for n in range(requests)]
    return list(await asyncio.gather(*(w.ask(workload, 60) for workload in workloads)))


async def load_until_it_bursts(w: World) -> asyncio.Task[list[tuple[int, str]]]:
    loading = asyncio.create_task(load_home(w))
    await w.until("bursting")
    return loading


def explain(w: World, workload: str) -> dict[str, Any]:
    request = w.directory / "request.json"
    request.write_text(json.dumps({"workload": workload, "model": "m"}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "orchestrator.cli", "explain", "--json"),
            *("--config", str(w.directory), "--request", str(request)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def cloud(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in result["candidates"] if c["pool"] == "cloud-gpu")
    return found


def test_a_slow_home_bursts_is_relieved_and_takes_its_load_back(
    tmp_path: Path, free_port: int
) -> None:
    async def test(w: World) -> None:
        loading = await load_until_it_bursts(w)
        await w.published()
        assert "cloud-gpu" in await w.pools("assistant")
        assert await w.pools("records") == {"home-gpu"}
        assert all(status == 200 for status, _ in await loading)
        await w.until("home")
        await w.published()
        assert await w.ask("assistant") == (200, "home-gpu")
        assert w.away.received
        assert not any("confidential" in str(request.body) for request in w.away.received)
        pools = w.controller.state()["pools"]
        assert pools["cloud-gpu"]["variants"]["m-1"]["inflight"] == 0

    run(tmp_path, free_port, test, usd=2.0)


def test_above_the_ceiling_the_same_load_stays_home_and_explain_says_why(
    tmp_path: Path, free_port: int
) -> None:
    async def test(w: World) -> None:
        loading = asyncio.create_task(load_home(w))
        async with asyncio.timeout(10):
            while "ceiling" not in w.burst()["reason"]:
                await asyncio.sleep(0.05)
        result = await asyncio.to_thread(explain, w, "assistant")
        assert all(answer == (200, "home-gpu") for answer in await loading)
        assert result["decision"]["pool"] == "home-gpu"
        assert cloud(result)["rejected_by"] == "price"
        assert "3.50" in cloud(result)["detail"]
        assert not w.away.received

    run(tmp_path, free_port, test, usd=3.5)


def test_a_price_that_rises_over_the_ceiling_ends_the_burst(tmp_path: Path, free_port: int) -> None:
    async def test(w: World) -> None:
        loading = await load_until_it_bursts(w)
        (tmp_path / "market.csv").write_text("time_s,usd_per_gpu_hour\n0,9\n")
        async with asyncio.timeout(10):
            while "9.00" not in w.burst()["reason"]:
                await asyncio.sleep(0.05)
        assert w.burst()["state"] != "bursting"
        assert all(status == 200 for status, _ in await loading)

    run(tmp_path, free_port, test, usd=2.0)


def test_gateways_go_on_without_a_controller_until_their_snapshot_is_stale(
    tmp_path: Path, free_port: int
) -> None:
    async def test(w: World) -> None:
        loading = await load_until_it_bursts(w)
        await w.published()
        assert "cloud-gpu" in await w.pools("assistant")
        await w.stop_controller()
        assert "cloud-gpu" in await w.pools("assistant")
        await loading
        await asyncio.sleep(2.2)
        # Nobody vouches for prices and bursts any more: everything counts as restricted.
        assert await w.ask("assistant") == (200, "home-gpu")

    run(tmp_path, free_port, test, usd=2.0)


def test_a_restarted_controller_remembers_its_bursts(tmp_path: Path, free_port: int) -> None:
    async def test(w: World) -> None:
        loading = await load_until_it_bursts(w)
        await asyncio.sleep(0.3)
        loaded = load(tmp_path)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        again = Controller(
            catalogue, Fleet(catalogue, w.session), tmp_path / "memory.json", time.time()
        )
        await again.tick(time.time())
        assert again.state()["bursts"]["assistant"]["state"] == "bursting"
        await loading

    run(tmp_path, free_port, test, usd=2.0)


def test_only_the_token_opens_the_controller(tmp_path: Path, free_port: int) -> None:
    async def test(w: World) -> None:
        url = f"http://127.0.0.1:{free_port}"
        for path in ("/v1/state", "/v1/snapshot"):
            for headers in ({}, {"authorization": "Bearer \udcff"}):
                async with w.session.get(url + path, headers=headers) as answer:
                    assert answer.status == 401
        good = {"authorization": f"Bearer {TOKEN}"}
        async with w.session.get(f"{url}/v1/state", headers=good) as answer:
            assert answer.status == 200
        async with w.session.post(f"{url}/v1/exchange", headers=good, data=b"{") as answer:
            assert answer.status == 400

    run(tmp_path, free_port, test, usd=2.0)


def test_a_revoked_key_is_refused_while_the_gateway_runs(tmp_path: Path, free_port: int) -> None:
    async def test(w: World) -> None:
        key, plaintext = keys.create(tmp_path, "assistant")
        w.keys["new"] = plaintext
        async with asyncio.timeout(5):
            while (await w.ask("new"))[0] != 200:
                await asyncio.sleep(0.05)
        keys.revoke(tmp_path, key.id)
        async with asyncio.timeout(5):
            while (await w.ask("new"))[0] != 401:
                await asyncio.sleep(0.05)

    run(tmp_path, free_port, test, usd=2.0)


def test_the_controllers_metrics_need_no_key_and_show_what_it_decided(
    tmp_path: Path, free_port: int
) -> None:
    async def test(w: World) -> None:
        loading = await load_until_it_bursts(w)
        shown = ""
        bursting = ({"workload": "assistant", "phase": "bursting"}, 1)
        async with asyncio.timeout(10):
            # A tick tells its metrics after it has decided.
            while bursting not in samples(shown, "orchestrator_burst_phase"):
                async with w.session.get(f"http://127.0.0.1:{free_port}/metrics") as answer:
                    shown = await answer.text()
        await loading
        assert ({"pool": "cloud-gpu"}, 1) in samples(shown, "orchestrator_quote_usable")
        assert samples(shown, "orchestrator_reporting_gateways") == [({}, 1)]
        assert samples(shown, "orchestrator_leader") == [({}, 1)]
        assert samples(shown, "orchestrator_tick_duration_seconds_count")[0][1] > 0

    run(tmp_path, free_port, test, usd=1)
