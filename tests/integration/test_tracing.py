"""Spans, as a collector receives them over OTLP."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from orchestrator.gateway.observer import tracing_by_environment
from tests.integration.engines import World, samples, scripted, serve, world

CANARY = "canary-sings"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SERVER, CLIENT = 2, 3
SAMPLED = 1


class Collector:
    """Spans as they came, and every byte of them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.received = b""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.received += body + str(request.headers).encode()
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response(body=ExportTraceServiceResponse().SerializeToString())

    def of_kind(self, kind: int) -> list[Any]:
        return [span for span in self.spans if span.kind == kind]


def attributes(holder: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in holder.attributes}


@asynccontextmanager
async def collecting(
    monkeypatch: pytest.MonkeyPatch, handler: Callable[[web.Request], Awaitable[Any]]
) -> AsyncIterator[None]:
    async with serve(scripted(handler)) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield


def traced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[[World], Awaitable[None]],
    **how: Any,
) -> Collector:
    """What has come to the collector when the gateway has stopped."""
    collector = Collector()

    async def inside() -> None:
        async with collecting(monkeypatch, collector.take), world(tmp_path, **how) as made:
            await test(made)

    asyncio.run(inside())
    return collector


async def answered(w: World, headers: dict[str, str] | None = None, **body: Any) -> int:
    given = {"authorization": f"Bearer {w.keys['open']}"} | (headers or {})
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": CANARY}],
        "max_tokens": 3,
    } | body
    async with w.session.post(f"{w.url}/v1/chat/completions", json=body, headers=given) as answer:
        await answer.read()
        return answer.status


def test_a_request_is_a_span_and_its_attempt_one_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(w: World) -> None:
        assert await answered(w, stream=True) == 200

    collector = traced(tmp_path, monkeypatch, test)
    (request,), (attempt,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert (request.name, attempt.name) == ("chat m", "chat m")
    assert attempt.parent_span_id == request.span_id
    assert attempt.trace_id == request.trace_id
    assert request.start_time_unix_nano <= attempt.start_time_unix_nano
    assert attempt.end_time_unix_nano <= request.end_time_unix_nano
    said = attributes(request)
    assert said.pop("gen_ai.response.time_to_first_chunk") > 0
    assert len(said.pop("orchestrator.request_id")) == 32
    assert said == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "orchestrator",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.response.model": "m-1",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "orchestrator.workload": "open",
        "orchestrator.data_class": "internal",
        "orchestrator.attempts": 1,
    }
    said = attributes(attempt)
    assert said.pop("server.port") > 0
    assert said.pop("gen_ai.response.time_to_first_chunk") > 0
    assert said.pop("orchestrator.policy_version")
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "m-1",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "server.address": "127.0.0.1",
        "orchestrator.attempt": 1,
        "orchestrator.attempt.kind": "first",
        "orchestrator.zone": "onprem",
        "orchestrator.pool": "a-home",
        "orchestrator.variant": "m-1",
        "orchestrator.data_class": "internal",
        "orchestrator.snapshot_version": 0,
        "orchestrator.outcome": "complete",
    }
    assert collector.resources[0]["service.name"] == "orchestrator-gateway"


def test_each_decision_and_each_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(w: World) -> None:
        assert await answered(w) == 200

    collector = traced(tmp_path, monkeypatch, test, home="status")
    (request,) = collector.of_kind(SERVER)
    decisions = [attributes(event) for event in request.events]
    assert {event.name for event in request.events} == {"orchestrator.decision"}
    assert [d["orchestrator.pool"] for d in decisions] == ["a-home", "b-away"]
    failed, succeeded = collector.of_kind(CLIENT)
    assert attributes(failed)["error.type"] == "status_500"
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert attributes(succeeded)["orchestrator.attempt.kind"] == "retry"
    assert "error.type" not in attributes(succeeded) | attributes(request)


def test_a_refusal_says_why_nothing_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(w: World) -> None:
        assert await answered(w, max_tokens=100_000) == 400

    (request,) = traced(tmp_path, monkeypatch, test).spans
    assert attributes(request)["error.type"] == "context_length_exceeded"
    assert attributes(request.events[0])["orchestrator.denied"] == "context_length"


def test_a_clients_trace_goes_on_to_the_engine_and_nothing_else_of_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, str]] = []

    async def engine(request: web.Request) -> web.Response:
        got.append({k.lower(): v for k, v in request.headers.items()})
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        headers = {"traceparent": PARENT, "tracestate": f"a={CANARY}", "baggage": f"a={CANARY}"}
        assert await answered(w, headers) == 200

    collector = traced(tmp_path, monkeypatch, test, home=engine)
    (request,), (attempt,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    assert got[0]["traceparent"] == f"00-{TRACE}-{attempt.span_id.hex()}-01"
    assert not {"tracestate", "baggage"} & set(got[0])
    assert CANARY not in str(got)


@pytest.mark.parametrize("given", ["", CANARY, PARENT[:-4], f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_trace_that_is_none_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    async def test(w: World) -> None:
        assert await answered(w, {"traceparent": given}) == 200

    (request,) = traced(tmp_path, monkeypatch, test).of_kind(SERVER)
    assert not request.parent_span_id
    assert request.trace_id.hex() not in (TRACE, "0" * 32)


def test_no_content_no_key_and_no_header_is_in_a_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ORCHESTRATOR_SESSION_KEY", "ORCHESTRATOR_TOKEN"):
        monkeypatch.setenv(name, f"{CANARY}-of-{name}")
    secrets: list[str] = []

    async def test(w: World) -> None:
        secrets.extend(w.keys.values())
        headers = {
            "user-agent": CANARY,
            "cookie": CANARY,
            "x-orchestrator-session": CANARY,
            "x-request-id": f"{CANARY}/not fit for logs",
            "tracestate": f"a={CANARY}",
            "traceparent": PARENT,
        }
        for stream in (True, False):
            assert await answered(w, headers, stream=stream, user=CANARY, stop=[CANARY]) == 200
        assert await answered(w, headers, model=CANARY) == 404
        assert await answered(w, headers, stream=CANARY) == 400
        assert await answered(w, {"authorization": f"Bearer {CANARY}"}) == 401
        method, path = CANARY.upper(), f"{w.url}/v1/models/{CANARY}?{CANARY}"
        async with w.session.request(method, path, headers=headers) as answer:
            assert answer.status >= 400

    collector = traced(tmp_path, monkeypatch, test)
    assert len(collector.of_kind(SERVER)) >= 5
    # What the engine answers is the client's as well.
    for text in (CANARY, CANARY.upper(), " t0", *secrets):
        assert text.encode() not in collector.received


def test_none_is_made_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing_by_environment("g") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing_by_environment("g") is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing_by_environment("g") is None


def test_without_a_collector_a_clients_trace_goes_nowhere(tmp_path: Path) -> None:
    got: list[str] = []

    async def engine(request: web.Request) -> web.Response:
        got.extend(name.lower() for name in request.headers)
        return web.json_response({"choices": [], "usage": None})

    async def inside() -> None:
        async with world(tmp_path, home=engine) as w:
            assert await answered(w, {"traceparent": PARENT}) == 200

    asyncio.run(inside())
    assert got
    assert "traceparent" not in got


def test_what_is_not_sampled_is_not_sent_and_the_engine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    got: list[int] = []

    async def engine(request: web.Request) -> web.Response:
        got.append(int(request.headers["traceparent"][-2:], 16) & SAMPLED)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        assert await answered(w) == 200
        assert await answered(w, {"traceparent": PARENT}) == 200

    collector = traced(tmp_path, monkeypatch, test, home=engine)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert got == [0, SAMPLED]


@pytest.mark.parametrize("collector", ["gone", "silent", "refusing"])
def test_a_collector_that_does_not_take_them_costs_spans_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: str
) -> None:
    monkeypatch.setattr("orchestrator.gateway.tracing.CLOSE_S", 0.2)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")

    async def handler(_: web.Request) -> web.Response:
        if collector == "silent":
            await asyncio.Event().wait()
        return web.Response(status=400)

    async def lost(w: World) -> float:
        shown = samples(await w.metrics(), "orchestrator_records_lost")
        return next(value for labels, value in shown if labels == {"record": "spans"})

    async def inside() -> None:
        async with collecting(monkeypatch, handler):
            if collector == "gone":
                monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            async with world(tmp_path) as w:
                async with asyncio.timeout(30):
                    while not await lost(w):
                        assert await answered(w) == 200

    asyncio.run(inside())


def test_the_access_log_names_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(w: World) -> None:
        assert await answered(w, {"traceparent": PARENT}) == 200

    traced(tmp_path, monkeypatch, test)
    line = orjson.loads((tmp_path / "logs" / "access.jsonl").read_bytes())
    assert line["trace_id"] == TRACE


def test_the_gateway_runs_without_the_library_where_nobody_traces() -> None:
    code = (
        "import sys, orchestrator.gateway.app as a; from orchestrator.gateway import observer;"
        "observer.tracing_by_environment('g'); print('opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
