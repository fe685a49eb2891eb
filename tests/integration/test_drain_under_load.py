"""A burst ends under live streams, on a cluster that kills replicas as soon as it may, and none is
cut."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.load import load
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.engine import EngineSpec, Job, SimulatedEngine
from tests.fake_serve import FakeServe
from tests.integration.engines import PLACES, serve, serve_engine, serve_gateway, text

TOKEN = "a-token"
STREAMS = 200
"""On the burst pool; home is filled with others first, whose clients leave in the end."""
HOME_SLOTS, CLOUD_SLOTS = 240, 200
HOME_STREAMS = HOME_SLOTS * 5 // 4
"""What home is given before anything has to wait."""
HOME_TOKENS, CLOUD_TOKENS = 1000, 10

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
    max_replicas: 1
    provision_s: 60
    price: {{fixed_usd_per_gpu_hour: 2}}
models:
  - name: m
    variants:
      - {{name: m-1, weights: org/m, pools: [home-gpu], max_model_len: 4096, max_num_seqs: 240}}
      - {{name: m-2, weights: org/m, pools: [cloud-gpu], max_model_len: 4096, max_num_seqs: 200}}
workloads:
  - name: assistant
    data_class: internal
    models: [m]
    allowed_zones: [onprem, cloud]
    slo: {{ttft_p95_s: 30}}
    price_ceiling: {{usd_per_gpu_hour: 3}}
    burst:
      pools: [cloud-gpu]
      queue_per_replica: 8
      sustained_s: 0.1
      release_utilization: 0.9
      release_sustained_s: 0.2
      min_dwell_s: 0.1
      cooldown_s: 60
gateway:
  url: "http://127.0.0.1:1"
  cluster: serve
  max_concurrent_requests: 1000
controller: {{url: "http://127.0.0.1:{port}", tick_s: 0.1, window_s: 1}}
"""
)


class PausedEngine(SimulatedEngine):
    """Its streams have begun, and go on when they are let: so long they live."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.go_on = asyncio.Event()

    async def _tokens(self, job: Job) -> AsyncIterator[str]:
        async for token in super()._tokens(job):
            yield token
            if job.output_tokens > 1:  # it is no warm-up
                await self.go_on.wait()


class KillingServe(FakeServe):
    """Its replica is a simulated engine. Told to go, it is killed at once, and its streams with it:
    harsher than Serve, which lets them end."""

    def __init__(self) -> None:
        super().__init__()
        spec = EngineSpec("m", ttft_s=0.01, itl_s=0.1, max_num_seqs=CLOUD_SLOTS)
        self.engine = PausedEngine(spec, remember=True)
        self._streams: list[tuple[dict[str, Any], web.Request]] = []
        self.cut = 0

    def application(self) -> web.Application:
        @web.middleware
        async def by_a_replica(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            serving = [r for r in self._all_replicas() if r["state"] == "RUNNING"]
            if not serving:
                raise web.HTTPServiceUnavailable
            least = min(serving, key=lambda r: sum(r is used for used, _ in self._streams))
            stream = (least, request)
            self._streams.append(stream)
            try:
                return await handler(request)
            finally:
                self._streams.remove(stream)

        engine = self.engine.application()
        engine.middlewares.append(by_a_replica)
        app = super().application()
        app.add_subapp("/pools/cloud-gpu/m-2/", engine)
        return app

    def live(self) -> int:
        return sum(request.method == "POST" for _, request in self._streams)

    def _all_replicas(self) -> list[dict[str, Any]]:
        return [replica for app in self.apps.values() for replica in app["replicas"]]

    def _advance(self, app: dict[str, Any]) -> None:
        super()._advance(app)
        for replica, request in list(self._streams):
            if replica["state"] == "STOPPING" and request.method == "POST":
                self.cut += 1
                assert request.transport is not None
                request.transport.abort()


@asynccontextmanager
async def running(controller: Controller, fleet: Fleet, port: int) -> AsyncIterator[None]:
    """Until the fleet is known and on, over HTTP."""
    runner = web.AppRunner(application(lambda: controller), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    ticking = asyncio.create_task(controller.run())
    try:
        await until(lambda: controller.published() is not None)
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await fleet.stop()
        await runner.cleanup()


async def stream(
    session: aiohttp.ClientSession, url: str, key: str, tokens: int
) -> tuple[str, str]:
    """The pool that answered, and all that it sent."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": tokens,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        return answer.headers.get("x-orchestrator-pool", ""), await answer.text()


class Clients:
    """Leave in the end, whatever is still open: a gateway that stops would wait for it."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[tuple[str, str]]] = []

    def start(self, work: Coroutine[None, None, tuple[str, str]]) -> asyncio.Task[tuple[str, str]]:
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def drain(directory: Path, port: int) -> None:
    home = SimulatedEngine(EngineSpec("m", ttft_s=0.01, itl_s=0.5, max_num_seqs=HOME_STREAMS))
    cloud = KillingServe()
    limits = aiohttp.TCPConnector(limit=0)
    async with (
        serve_engine(home) as home_url,
        serve(cloud.application()) as cloud_url,
        aiohttp.ClientSession(connector=limits) as session,
    ):
        written = CONFIG.format(home=home_url, away=cloud_url, port=port).replace(
            f'kind: openai, url: "{cloud_url}"',
            f'kind: ray, url: "{cloud_url}", dashboard_url: "{cloud_url}"',
        )
        (directory / "all.yaml").write_text(written)
        key = keys.create(directory, "assistant")[1]
        loaded = load(directory)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        fleet = Fleet(catalogue, session)
        controller = Controller(catalogue, fleet, directory / "memory.json", time.time())

        def burst() -> str:
            return str(controller.snapshot.bursts["assistant"].phase)

        async with (
            running(controller, fleet, port),
            serve_gateway(directory) as url,
            Clients() as clients,
        ):

            def start(count: int, tokens: int) -> list[asyncio.Task[tuple[str, str]]]:
                return [clients.start(stream(session, url, key, tokens)) for _ in range(count)]

            at_home = start(HOME_STREAMS, HOME_TOKENS)
            await asyncio.sleep(0.3)
            away = start(STREAMS, CLOUD_TOKENS)
            await until(lambda: cloud.live() == STREAMS)
            assert burst() == "bursting"
            for one in at_home:
                one.cancel()
            await until(lambda: burst() == "draining")
            version = controller.snapshot.version
            await until(lambda: controller.snapshot.version >= version + 3)
            assert cloud.live() == STREAMS
            cloud.engine.go_on.set()
            answers = await asyncio.gather(*away)
            await until(lambda: not any(cloud.replicas().values()))
            await until(lambda: burst() == "home")
        whole = "".join(f" t{n}" for n in range(CLOUD_TOKENS))
        assert {pool for pool, _ in answers} == {"cloud-gpu"}
        assert {text(sent) for _, sent in answers} == {whole}
        assert all(sent.endswith("data: [DONE]\n\n") for _, sent in answers)
        assert cloud.cut == 0
        # Nor was one begun anew without its client's knowledge.
        chats = [r for r in cloud.engine.received if r.path.endswith("/chat/completions")]
        assert len(chats) == STREAMS


def test_no_stream_is_cut_when_a_burst_ends_under_200_of_them(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", TOKEN)
    asyncio.run(drain(tmp_path, free_port))
