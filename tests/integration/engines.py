"""Simulated engines and the gateway in front of them, over real HTTP on loopback."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.connections import ConnectionLimits
from orchestrator.gateway.server import listen, server
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from orchestrator.simulate.faults import Fault

FAST = EngineSpec("m", ttft_s=0.001, itl_s=0.001)

PLACES = """
zones:
  - {{name: onprem, jurisdiction: DE, max_data_class: restricted}}
  - {{name: cloud, jurisdiction: EU, max_data_class: internal}}
clusters:
  - name: serve
    zone: onprem
    kind: ray
    url: http://127.0.0.1:9
    dashboard_url: http://127.0.0.1:9
  - {{name: home, zone: onprem, kind: openai, url: "{home}"}}
  - {{name: away, zone: cloud, kind: openai, url: "{away}"}}
"""
"""Zones and clusters of two engines; the gateway's own cluster is not there."""

CONFIG = (
    PLACES
    + """
pools:
  - name: a-home
    cluster: home
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{fixed_usd_per_gpu_hour: 1}}
  - name: b-away
    cluster: away
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{fixed_usd_per_gpu_hour: 1}}
models:
  - name: m
    variants:
      - {{name: m-1, weights: org/m, pools: [a-home, b-away], max_model_len: 4096, max_num_seqs: 4}}
workloads:
  - name: open
    data_class: internal
    models: [m]
    allowed_zones: [onprem, cloud]
    slo: {{ttft_p95_s: 1}}
  - name: closed
    data_class: restricted
    models: [m]
    allowed_zones: [onprem]
    slo: {{ttft_p95_s: 1}}
gateway:
  url: http://127.0.0.1:0
  cluster: serve
  max_body_bytes: 2000
  max_concurrent_requests: {max_open}
  timeouts: {{first_token_s: 1, between_tokens_s: 1, total_s: {total_s}}}
controller: {{url: "{controller}", tick_s: 0.05}}
"""
)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scripted(handler: Handler) -> web.Application:
    """A server that answers everything with one handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


def serve_engine(engine: SimulatedEngine) -> AbstractAsyncContextManager[str]:
    """The engine's URL."""
    return serve(engine.application())


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def apply(directory: Path) -> None:
    """Puts the configuration of the directory in force, which is its state directory too."""
    PolicyStore(directory).apply(directory, lambda _directory, _loaded: [])


@asynccontextmanager
async def serve_gateway(
    directory: Path, limits: ConnectionLimits | None = None
) -> AsyncIterator[str]:
    """The URL of a gateway by this configuration, which keeps its records beside it."""
    apply(directory)
    gateway = Gateway(directory)
    http, listener = server(gateway, limits), listen("http://127.0.0.1:0")
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    while not http.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        http.should_exit = True
        await serving


@dataclass
class World:
    """A gateway with a home engine, which is preferred, and one in the cloud."""

    url: str
    home: SimulatedEngine
    away: SimulatedEngine
    session: aiohttp.ClientSession
    keys: dict[str, str]

    async def metrics(self) -> str:
        async with self.session.get(f"{self.url}/metrics") as answer:
            return await answer.text()

    async def series(self, name: str) -> list[dict[str, str]]:
        """The labels of every series of a metric, `gateway` left out."""
        return [labels for labels, _ in samples(await self.metrics(), name)]

    def post(self, workload: str = "open", **body: object) -> Any:
        """A chat of three tokens."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
        headers = {"authorization": f"Bearer {self.keys[workload]}"}
        return self.session.post(
            f"{self.url}/v1/chat/completions", json={"max_tokens": 3} | body, headers=headers
        )


@asynccontextmanager
async def world(
    tmp_path: Path,
    home: str | Handler = "",
    away: str | Handler = "",
    total_s: float = 60,
    max_open: int = 100,
    home_is_dead: bool = False,
    limits: ConnectionLimits | None = None,
    replacing: Mapping[str, str] | None = None,
    spec: EngineSpec = FAST,
    more: str = "",
    vllm: bool = False,
    through: Callable[[str], AbstractAsyncContextManager[str]] = nullcontext,
) -> AsyncIterator[World]:
    """`home` and `away` are faults, as `Fault.parse` takes them, or answer in an engine's place.
    `replacing`: parts of the configuration's text by others. `spec`: of both engines. `more`:
    another field of the open workload. `vllm`: both are known to be vLLM. `through`: what
    stands before an engine's URL, as another."""
    home_engine, away_engine = (
        SimulatedEngine(
            spec, [Fault.parse(how)] if isinstance(how, str) and how else [], remember=True
        )
        for how in (home, away)
    )
    home_app, away_app = (
        engine.application() if isinstance(how, str) else scripted(how)
        for engine, how in ((home_engine, home), (away_engine, away))
    )
    async with (
        serve(home_app) as home_own_url,
        serve(away_app) as away_own_url,
        through(home_own_url) as home_url,
        through(away_own_url) as away_url,
    ):
        text = CONFIG.format(
            home="http://127.0.0.1:9" if home_is_dead else home_url,
            away=away_url,
            controller="http://127.0.0.1:9",
            total_s=total_s,
            max_open=max_open,
        )
        for part, other in (replacing or {}).items():
            assert part in text
            text = text.replace(part, other)
        if more:
            text = text.replace("  - name: open\n", f"  - name: open\n    {more}\n")
        if vllm:
            text = text.replace("kind: openai,", "kind: openai, engine: vllm,")
        (tmp_path / "all.yaml").write_text(text)
        plain = {name: keys.create(tmp_path, name)[1] for name in ("open", "closed")}
        async with serve_gateway(tmp_path, limits) as url, aiohttp.ClientSession() as session:
            yield World(url, home_engine, away_engine, session, plain)


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]], **how: Any) -> None:
    """A test in a world; `how` as for `world`."""

    async def inside() -> None:
        async with world(tmp_path, **how) as made:
            await test(made)

    asyncio.run(inside())


def billed(directory: Path, columns: str) -> list[tuple[Any, ...]]:
    """Of every attempt in the ledger, by request and number."""
    # Only fixed names come here.
    select = f"SELECT {columns} FROM usage ORDER BY request_id, attempt"
    return sqlite3.connect(directory / "ledger.sqlite").execute(select).fetchall()


def samples(exposition: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels, `gateway` left out, and values of all samples of that name."""
    return [
        ({k: v for k, v in sample.labels.items() if k != "gateway"}, sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    ]


def text(stream: str) -> str:
    """The content of a stream's events, put together."""
    events = [orjson.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
