"""The gateway over real HTTP, in front of engines that answer as vLLM does, or fail."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvicorn
from aiohttp import web

from orchestrator.config import keys
from orchestrator.gateway.app import Gateway

WORDS = ["one", "two", "three"]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


@dataclass
class Engine:
    """An engine with a fault: `status`, `cut_before`, `cut_after` or `hang`."""

    fault: str = ""
    received: list[str] = field(default_factory=list)
    cancelled: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append(await request.text())
        if self.fault == "status":
            return web.json_response({"error": {"message": "secret trouble"}}, status=500)
        if not json.loads(self.received[-1]).get("stream"):
            message = {"role": "assistant", "content": " ".join(WORDS)}
            return web.json_response({"choices": [{"message": message}], "usage": USAGE})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await self._event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        if self.fault == "hang":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        for i, word in enumerate(WORDS):
            if self.fault == "cut_before" or (self.fault == "cut_after" and i == 2):
                request.transport.close()
                return response
            await self._event(response, {"choices": [{"delta": {"content": word}}]})
        await self._event(response, {"choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    async def _event(response: web.StreamResponse, value: object) -> None:
        body = json.dumps(value, separators=(",", ":")).encode()
        await response.write(b"data: " + body + b"\n\n")


CONFIG = """
zones:
  - {{name: onprem, jurisdiction: DE, max_data_class: restricted}}
  - {{name: cloud, jurisdiction: EU, max_data_class: internal}}
clusters:
  - {{name: serve, zone: onprem, kind: ray, url: "http://127.0.0.1:9", dashboard_url: "http://127.0.0.1:9"}}
  - {{name: home, zone: onprem, kind: openai, url: "{home}"}}
  - {{name: away, zone: cloud, kind: openai, url: "{away}"}}
pools:
  - {{name: a-home, cluster: home, accelerator: GPU, min_replicas: 1, max_replicas: 1, provision_s: 1, price: {{fixed_usd_per_gpu_hour: 1}}}}
  - {{name: b-away, cluster: away, accelerator: GPU, min_replicas: 1, max_replicas: 1, provision_s: 1, price: {{fixed_usd_per_gpu_hour: 1}}}}
models:
  - name: m
    variants:
      - {{name: m-1, weights: org/m, pools: [a-home, b-away], max_model_len: 4096, max_num_seqs: 4}}
workloads:
  - {{name: open, data_class: internal, models: [m], allowed_zones: [onprem, cloud], slo: {{ttft_p95_s: 1}}}}
  - {{name: closed, data_class: restricted, models: [m], allowed_zones: [onprem], slo: {{ttft_p95_s: 1}}}}
gateway:
  cluster: serve
  max_body_bytes: 2000
  timeouts: {{first_token_s: 2}}
controller: {{url: "http://127.0.0.1:9"}}
"""


@dataclass
class World:
    url: str
    home: Engine
    away: Engine
    session: aiohttp.ClientSession
    keys: dict[str, str]
    ledger: Path

    def post(self, workload: str = "open", **body: object) -> aiohttp.client._RequestContextManager:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
        headers = {"authorization": f"Bearer {self.keys[workload]}"}
        return self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def world(tmp_path: Path, home: str = "", away: str = "") -> AsyncIterator[World]:
    engines, runners, urls = [Engine(home), Engine(away)], [], []
    for engine in engines:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", engine.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        runners.append(runner)
    (tmp_path / "all.yaml").write_text(CONFIG.format(home=urls[0], away=urls[1]))
    plain = {name: keys.create(tmp_path, name)[1] for name in ("open", "closed")}
    gateway = Gateway(tmp_path, tmp_path / "ledger.sqlite")
    server = uvicorn.Server(uvicorn.Config(gateway, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        yield World(
            f"http://127.0.0.1:{port}", *engines, session, plain, tmp_path / "ledger.sqlite"
        )
    server.should_exit = True
    await serving
    for runner in runners:
        await runner.cleanup()


def run(
    tmp_path: Path, test: Callable[[World], Awaitable[None]], home: str = "", away: str = ""
) -> None:
    async def inside() -> None:
        async with world(tmp_path, home, away) as made:
            await test(made)

    asyncio.run(inside())


def text(body: str) -> str:
    events = [line[6:] for line in body.splitlines() if line.startswith("data: {")]
    choices = [c for e in events for c in json.loads(e).get("choices", [])]
    return " ".join(c["delta"]["content"] for c in choices if c["delta"].get("content"))


def test_a_whole_answer_passes_and_is_recorded(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 200
            assert (await answer.json())["usage"] == USAGE
            assert answer.headers["x-orchestrator-pool"] == "a-home"

    run(tmp_path, test)
    rows = sqlite3.connect(tmp_path / "ledger.sqlite").execute(
        "SELECT workload, zone, prompt_tokens, completion_tokens, outcome FROM usage"
    )
    assert rows.fetchall() == [("open", "onprem", 5, 3, "complete")]


def test_a_stream_passes_without_the_usage_that_nobody_asked_for(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            body = await answer.text()
        assert text(body) == "one two three"
        assert '"usage"' not in body
        assert body.endswith("data: [DONE]\n\n")

    run(tmp_path, test)


def test_before_the_first_token_a_failed_attempt_is_made_elsewhere(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"
            assert text(await answer.text()) == "one two three"

    for fault in ("status", "cut_before", "hang"):
        folder = tmp_path / fault
        folder.mkdir()
        run(folder, test, home=fault)


def test_restricted_data_is_refused_rather_than_sent_away(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        for stream in (True, False):
            async with w.post("closed", stream=stream) as answer:
                assert answer.status == 503
                assert "retry-after" in answer.headers
                assert "secret" not in await answer.text()
        headers = {
            "authorization": f"Bearer {w.keys['open']}",
            "x-orchestrator-data-class": "restricted",
        }
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        url = f"{w.url}/v1/chat/completions"
        async with w.session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 503
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home="status")


def test_after_the_first_token_a_cut_ends_typed_and_repeats_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True) as answer:
            body = await answer.text()
        assert text(body) == "one two"
        assert '"code":"stream_interrupted"' in body
        assert "[DONE]" not in body
        assert not w.away.received

    run(tmp_path, test, home="cut_after")


def test_a_client_that_leaves_cancels_its_upstream(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        request = asyncio.create_task(w.post("closed", stream=True).__aenter__())
        while not w.home.received:
            await asyncio.sleep(0.01)
        request.cancel()
        for _ in range(150):
            if w.home.cancelled:
                break
            await asyncio.sleep(0.01)
        assert w.home.cancelled == 1

    run(tmp_path, test, home="hang")


def test_bad_input_gets_4xx_in_openais_shape(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        good = {"authorization": f"Bearer {w.keys['open']}"}
        url = f"{w.url}/v1/chat/completions"
        cases: list[tuple[int, dict[str, str], bytes]] = [
            (401, {}, b"{}"),
            (401, {"authorization": "Bearer sk-none-such"}, b"{}"),
            (400, good, b"{"),
            (400, good, b"[]"),
            (400, good, b'{"model": "m"}'),
            (400, good, b'{"model": "m", "messages": [1], "stream": "yes"}'),
            (400, {**good, "x-orchestrator-data-class": "secret"}, b'{"model":"m","messages":[1]}'),
            (404, good, b'{"model": "other", "messages": [1]}'),
            (413, good, b" " * 3000),
        ]
        for status, headers, body in cases:
            async with w.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status, body
                error = (await answer.json())["error"]
                assert set(error) == {"message", "type", "param", "code"}
                assert answer.headers["x-request-id"]
        assert not w.home.received

    run(tmp_path, test)
