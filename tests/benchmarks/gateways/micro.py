"""`python -m tests.benchmarks.gateways.micro`: parts of the request path alone, in processor
time; those of the network beside the least that Python can do."""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httptools
import numpy as np
import orjson
import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.classify import classifier_for
from orchestrator.config.load import load
from orchestrator.gateway import sse
from orchestrator.gateway.access import authenticate
from orchestrator.gateway.records import Records
from orchestrator.gateway.request import parse
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.ledger.audit import AuditLog
from orchestrator.ledger.usage import UsageLedger, UsageRecord
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.policy.view import View
from orchestrator.sessions.ratchet import Ratchet
from tests.benchmarks.gateways import contenders as c
from tests.benchmarks.gateways.engine import MODEL, TOKEN, TOKENS, WHOLE
from tests.benchmarks.gateways.load import Scenario, Target, bodies, measure

SMALL, LARGE = Scenario(32, 1024, stream=False), Scenario(32, 32 * 1024, stream=False)
STREAM = Scenario(32, 1024, stream=True)
PATH = "/v1/chat/completions"
HEADERS = {"content-type": "application/json", "x-request-id": "5d1c3c0f9d6f4a1b8a8f2f0c9b7e6d5a"}
out = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        SERVERS[options.serve](options.port)
        return
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        _show("processing, one request", _processing(folder))
        with c.Contenders(folder, Path()) as contenders:
            c.wait_for(contenders.direct())
            _show(
                "client, one request of 32 at a time",
                uvloop.run(_clients(contenders.engine_port, options.requests)),
            )
            _show("server, one request of 32 at a time", _servers(contenders))


def _show(title: str, rows: list[tuple[str, float]]) -> None:
    table = Table("", title=title, min_width=60)
    table.add_column("µs", justify="right")
    for name, s in rows:
        table.add_row(name, f"{s * 1e6:.1f}")
    out.print(table)


def _each(run: Callable[[int], object], at_least_s: float = 0.2) -> float:
    """The median over five turns; `run` gets a number that counts up."""
    run(0)
    times = 1
    while (took_s := _turn(run, times)) < at_least_s / 5:
        times = max(times * 2, int(times * at_least_s / 5 / max(took_s, 1e-6)))
    gc.collect()
    return float(np.median([_turn(run, times) / times for _ in range(5)]))


def _turn(run: Callable[[int], object], times: int) -> float:
    began_s = time.process_time()
    for number in range(times):
        run(number)
    return time.process_time() - began_s


def _processing(folder: Path) -> list[tuple[str, float]]:
    key = c.configured(folder / "state", *(f"http://127.0.0.1:{n}" for n in (7, 8, 9)))
    loaded = load(folder / "state" / "clusters")
    catalogue = Catalogue(loaded.configuration, loaded.version)
    keys = {k.id: k for k in loaded.configuration.keys}
    header = f"Bearer {key}".encode()
    rows = [("authenticate", _each(lambda _: authenticate(keys, catalogue.workloads, header)))]
    classifier = classifier_for(loaded.configuration)
    ratchet = Ratchet(folder / "sessions.sqlite", b"k" * 32)
    for scenario in (SMALL, LARGE):
        size = f"{scenario.body_bytes // 1024} KB"
        raw = bodies(scenario)
        parsed = [parse(PATH, one).content for one in raw]
        said = [ratchet.recognize("bench", "", one) for one in parsed]
        for name, run in (
            ("parse", lambda n, raw=raw: parse(PATH, raw[n % 32])),
            ("JSON read alone", lambda n, raw=raw: orjson.loads(raw[n % 32])),
            (
                "classify",
                lambda n, parsed=parsed: classifier.classify("bench", parsed[n % 32]),
            ),
            (
                "sessions: recognize",
                lambda n, parsed=parsed: ratchet.recognize("bench", "", parsed[n % 32]),
            ),
            (
                "sessions: seen unraised",
                lambda n, said=said: ratchet.seen_unraised(said[n % 32]),
            ),
        ):
            rows.append((f"{name}, {size}", _each(run)))
    ratchet.close()
    return rows + _deciding(folder, catalogue)


def _deciding(folder: Path, catalogue: Catalogue) -> list[tuple[str, float]]:
    snapshot = Snapshot(
        config_version=catalogue.version,
        created_at_s=time.time(),
        endpoints={e: EndpointState(ready_replicas=1) for e in catalogue.candidates},
    )
    view = View(catalogue, snapshot, "micro")
    telemetry = Telemetry()
    telemetry.inflight.follow(catalogue)

    def facts(number: int) -> Facts:
        return Facts(
            workload="bench",
            model=MODEL,
            max_tokens=TOKENS,
            prompt_tokens=256 + number % 100,
            snapshot_age_s=0.5,
            inflight=telemetry.inflight.counts,
        )

    asked = facts(0)
    decision = decide(asked, view)
    assert decision.grant is not None
    audit = AuditLog(folder / "audit", "micro", capacity=10**9)
    ledger = UsageLedger(folder / "ledger.sqlite", capacity=10**9)
    records = Records(ledger, audit)
    endpoint = decision.grant.candidate.endpoint

    def used(_: int) -> None:
        records.used(
            UsageRecord(
                request_id="r",
                attempt=1,
                started_at_s=1.9e9,
                workload="bench",
                key_id="k",
                data_class="internal",
                model=MODEL,
                variant="instant-1",
                pool="home-a",
                zone="onprem",
                policy_version="v",
                snapshot_version=1,
                usd_per_gpu_hour=None,
                outcome="complete",
                prompt_tokens=256,
                cached_tokens=0,
                completion_tokens=64,
                usage_source="engine",
                ttft_s=None,
                duration_s=0.01,
            )
        )

    def measured(number: int) -> None:
        telemetry.opened(endpoint, number, None)
        telemetry.closed(endpoint, number, None)
        telemetry.used(endpoint, "bench", MODEL, "onprem", 256, 64)
        telemetry.answered("bench", MODEL, "onprem", "home-a", 200)

    rows = [
        ("facts", _each(facts)),
        ("decide", _each(lambda _: decide(asked, view))),
        (
            "audit row, with its digest",
            _each(lambda n: records.decided("r", "k", 1, asked, decide(asked, view), view))
            - _each(lambda _: decide(asked, view)),
        ),
        ("usage record", _each(used)),
        ("metrics", _each(measured)),
        (
            "a whole answer's JSON, read for its usage",
            _each(lambda _: orjson.loads(WHOLE.partition(b"\r\n\r\n")[2])),
        ),
    ]
    event = TOKEN.partition(b"\r\n")[2][:-2]
    splitter = sse.EventSplitter()
    rows.append(
        (
            "a token's event: cut, told what it is",
            _each(lambda _: [sse.read(one, True) for one in splitter.feed(event)]),
        )
    )
    rows.append(("asyncio.timeout, entered and left", uvloop.run(_timeouts())))
    rows.append(("a task, made and cancelled", uvloop.run(_tasks())))
    return rows


async def _timeouts() -> float:
    async def nothing() -> None:
        pass

    times = 20_000
    began_s = time.process_time()
    for _ in range(times):
        async with asyncio.timeout(30):
            await nothing()
    return (time.process_time() - began_s) / times


async def _tasks() -> float:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    times = 20_000
    began_s = time.process_time()
    for _ in range(times):
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
    return (time.process_time() - began_s) / times


class _Lean(asyncio.Protocol):
    """The least of a client: one connection, httptools, a future for each answer."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.chunks: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_message_complete(self) -> None:
        self.answer.set_result(b"".join(self.chunks))

    def ask(self, request: bytes, body: bytes) -> asyncio.Future[bytes]:
        self.parser = httptools.HttpResponseParser(self)
        self.chunks = []
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(request + body)
        return self.answer


async def _clients(port: int, requests: int) -> list[tuple[str, float]]:
    found = []
    for scenario in (SMALL, LARGE, STREAM):
        kind = f"{'stream' if scenario.stream else 'whole'}, {scenario.body_bytes // 1024} KB"
        share = requests if scenario is SMALL else requests // 4
        for name, client in (("aiohttp", _by_aiohttp), ("httptools alone", _by_httptools)):
            found.append((f"{name}, {kind}", await client(port, bodies(scenario), share)))
    return found


async def _by_aiohttp(port: int, raw: list[bytes], requests: int) -> float:
    url = f"http://127.0.0.1:{port}{PATH}"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("user-agent", "accept-encoding"),
        read_bufsize=2**18,
    ) as session:

        async def ask(number: int, _worker: int) -> bytes:
            async with session.post(
                url, data=raw[number % 32], headers=HEADERS, allow_redirects=False
            ) as response:
                parts = []
                while part := await response.content.readany():
                    parts.append(part)
                return b"".join(parts)

        return await _load(ask, requests)


async def _by_httptools(port: int, raw: list[bytes], requests: int) -> float:
    loop = asyncio.get_running_loop()
    pool = [(await loop.create_connection(_Lean, "127.0.0.1", port))[1] for _ in range(32)]

    async def ask(number: int, worker: int) -> bytes:
        body = raw[number % 32]
        fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{fields}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return await pool[worker].ask(head.encode(), body)

    try:
        return await _load(ask, requests)
    finally:
        for one in pool:
            one.transport.close()


async def _load(ask: Callable[[int, int], Awaitable[bytes]], requests: int) -> float:
    """Processor time of each request, 32 at a time."""
    left = iter(range(requests))

    async def worker(number: int) -> None:
        for n in left:
            answer = await ask(n, number)
            assert b"[DONE]" in answer[-20:] or b'"usage"' in answer

    await asyncio.gather(*(worker(n) for n in range(32)))
    left = iter(range(requests))
    began_s = time.process_time()
    await asyncio.gather(*(worker(n) for n in range(32)))
    return (time.process_time() - began_s) / requests


ANSWER = WHOLE.partition(b"\r\n\r\n")[2]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(ANSWER)).encode()),
        *((f"x-orchestrator-{n}".encode(), b"something") for n in range(5)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


class _Bare(asyncio.Protocol):
    """The least of a server: httptools, a task for each request, one write for its answer."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        asyncio.get_running_loop().create_task(
            self.answer(dict(self.headers), b"".join(self.parts))
        )
        self.headers, self.parts = [], []

    async def answer(self, headers: dict[bytes, bytes], body: bytes) -> None:
        assert headers
        assert body
        head = "".join(f"x-orchestrator-{n}: something\r\n" for n in range(5))
        self.transport.write(
            (
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                f"{head}content-length: {len(ANSWER)}\r\n\r\n"
            ).encode()
            + ANSWER
        )


def _by_uvicorn(port: int) -> None:
    uvicorn.Server(
        uvicorn.Config(
            _app,
            port=port,
            http=HttpToolsProtocol,
            loop="uvloop",
            access_log=False,
            log_level="error",
            server_header=False,
            date_header=False,
        )
    ).run()


def _by_protocol(port: int) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Bare, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    uvloop.run(serve())


SERVERS: dict[str, Callable[[int], None]] = {"uvicorn": _by_uvicorn, "protocol": _by_protocol}
NAMES = {"uvicorn": "uvicorn's httptools protocol", "protocol": "httptools alone"}


def _servers(contenders: c.Contenders) -> list[tuple[str, float]]:
    found = []
    for server, name in NAMES.items():
        port = c.free_port()
        running = contenders.start(
            server,
            [
                *(sys.executable, "-m", "tests.benchmarks.gateways.micro"),
                *("--serve", server, "--port", str(port)),
            ],
        )
        target = Target(name, port, {"authorization": "Bearer key"}, running.pid)
        c.wait_for(target, streams=False)
        for scenario in (SMALL, LARGE):
            before_s = c.processor_s(running.pid)
            _, answers = uvloop.run(measure(target, scenario, 3))
            cpu_s = (c.processor_s(running.pid) - before_s) / answers
            found.append((f"{name}, {scenario.body_bytes // 1024} KB", cpu_s))
    return found


if __name__ == "__main__":
    main()
