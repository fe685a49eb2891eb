"""`profile` against a simulated engine, over HTTP: what it asks, and that it finds what the engine
was started with. Time is virtual where figures matter."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import aiohttp
import pytest
import yaml
from aiohttp import web
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.config.spec import Performance
from orchestrator.profile.endpoint import Endpoint
from orchestrator.profile.fit import Profile, ProfileError
from orchestrator.profile.measure import Measurement, concurrencies, steps
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from orchestrator.simulate.faults import Fault
from tests.integration.engines import serve
from tests.virtual_time import run_virtually

SPEC = EngineSpec(
    "m", ttft_s=0.03, itl_s=0.02, max_num_seqs=6, max_model_len=2048, prefill_tokens_per_s=5000
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def profiled(
    engine: SimulatedEngine,
    max_num_seqs: int | None = None,
    limit_s: float = 60,
    hidden: tuple[str, ...] = (),
    on_progress: Callable[[float], None] = lambda steps: None,
) -> Profile:
    """`hidden`: paths that the endpoint does not have."""

    @web.middleware
    async def hides(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in hidden:
            raise web.HTTPNotFound
        return await handler(request)

    async def inside() -> Profile:
        application = engine.application()
        application.middlewares.append(hides)
        async with serve(application) as url, aiohttp.ClientSession() as session:
            endpoint = Endpoint(session, url)
            await endpoint.look(None)
            sequences = max_num_seqs or engine.spec.max_num_seqs
            return await Measurement(endpoint, sequences, limit_s, 1, on_progress).run()

    return run_virtually(inside())


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, ttft_s=0, itl_s=0.1, max_num_seqs=1, prefill_tokens_per_s=300),
        replace(SPEC, ttft_s=0.5, itl_s=0.05, max_num_seqs=16, prefill_tokens_per_s=100_000),
    ],
)
def test_what_an_engine_was_started_with_is_found(spec: EngineSpec) -> None:
    found = profiled(SimulatedEngine(spec), limit_s=300)
    figures = found.performance("L40S", "test")
    assert figures.prefill_tokens_per_s == pytest.approx(spec.prefill_tokens_per_s, rel=0.01)
    assert figures.decode_tokens_per_s == pytest.approx(spec.max_num_seqs / spec.itl_s, rel=0.01)
    assert figures.itl_s == pytest.approx(spec.itl_s, rel=0.01)
    assert figures.kv_cache_tokens == spec.max_num_seqs * spec.max_model_len
    assert found.prefill().overhead_s == pytest.approx(spec.ttft_s, abs=1e-3)
    assert [b.sequences for b in found.batches] == concurrencies(spec.max_num_seqs)


def test_prompts_are_read_alone_and_no_two_begin_alike() -> None:
    engine = SimulatedEngine(SPEC, remember=True)
    told: list[float] = []
    profiled(engine, on_progress=told.append)
    bodies = [r.body for r in engine.received]
    alone = [b for b in bodies if not b.get("stream")]
    streams = [b for b in bodies if b.get("stream")]
    assert {b["max_tokens"] for b in alone} == {1}
    assert len(streams) == sum(concurrencies(SPEC.max_num_seqs))
    assert all(b["ignore_eos"] for b in streams)
    starts = [b["prompt"].split()[:8] for b in bodies]
    assert all(a != b for a, b in combinations(starts, 2))
    assert sum(told) == steps(SPEC.max_num_seqs)


def test_an_engine_that_is_not_known_as_vllm_gets_nothing_that_only_vllm_knows() -> None:
    engine = SimulatedEngine(SPEC, remember=True)
    found = profiled(engine, hidden=("/metrics", "/version"))
    assert found.kv_cache_tokens is None
    assert found.batches[-1].itl_s == pytest.approx(SPEC.itl_s, rel=0.01)
    assert {name for r in engine.received for name in r.body} == {
        *("model", "prompt", "max_tokens", "temperature", "stream", "stream_options")
    }
    options = [r.body["stream_options"] for r in engine.received if "stream_options" in r.body]
    assert all(o == {"include_usage": True} for o in options)


def test_an_engine_that_takes_fewer_at_once_is_not_measured_with_more() -> None:
    with pytest.raises(ProfileError, match="--max-num-seqs that it was started with"):
        profiled(SimulatedEngine(SPEC), max_num_seqs=8)


def test_too_little_time_is_told() -> None:
    with pytest.raises(ProfileError, match="not measured within 1 s; give more --seconds"):
        profiled(SimulatedEngine(SPEC), limit_s=1)


def test_an_engine_at_work_is_not_measured() -> None:
    engine = SimulatedEngine(SPEC)
    engine.metrics.running.inc(3)
    with pytest.raises(ProfileError, match="works on 3 requests"):
        profiled(engine)


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        ("unauthorized:0:1", "--api-key-env"),
        ("no_usage:0:1", "does not tell its `usage`"),
        ("status:0:1", "500"),
    ],
)
def test_what_the_endpoint_refuses_is_told_with_the_mend(fault: str, mend: str) -> None:
    with pytest.raises(ProfileError, match=mend):
        profiled(SimulatedEngine(SPEC, [Fault.parse(fault)]))


@pytest.mark.parametrize("fault", ["cut:3:1", "error_event:3:1"])
def test_streams_that_break_off_are_told(fault: str) -> None:
    with pytest.raises(ProfileError, match="a stream broke off"):
        profiled(SimulatedEngine(SPEC, [Fault.parse(fault)]))


@contextmanager
def running(engine: SimulatedEngine) -> Iterator[str]:
    """The engine's URL; it runs in a thread, in real time."""
    urls: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def inside() -> None:
        async with serve(engine.application()) as url:
            urls.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(inside()))
    thread.start()
    try:
        assert ready.wait(10)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


QUICK = EngineSpec(
    "m", ttft_s=0.001, itl_s=0.003, max_num_seqs=2, max_model_len=512, prefill_tokens_per_s=5000
)
WORDS = ("--accelerator", "L40S", "--max-num-seqs", "2", "--seconds", "20")


def command(*words: str) -> Result:
    return CliRunner().invoke(app, ["profile", *words])


def test_the_command_prints_yaml_to_paste_and_json_for_machines() -> None:
    with running(SimulatedEngine(QUICK)) as url:
        shown, told = command(url, *WORDS), command(f"{url}/v1", *WORDS, "--json")
    assert shown.exit_code == told.exit_code == 0, shown.output + told.output
    (pasted,) = yaml.safe_load(shown.stdout[shown.stdout.index("performance:") :])["performance"]
    assert Performance(**pasted).kv_cache_tokens == 1024
    report = json.loads(told.stdout)
    assert Performance(**report["performance"]).source.startswith("measured at ")
    assert "with vLLM 0+simulated" in report["performance"]["source"]
    assert [p["sequences"] for p in report["decode"]] == [1, 2]
    assert len(report["prefill"]) == 6


def test_no_key_is_sent_where_others_could_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", "secret")
    result = command("http://engine.example:8000", *WORDS, "--api-key-env", "ENGINE_KEY")
    assert result.exit_code == 2
    assert "write https://" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("http://[::1", "is no URL"),
        ("engine", "write http://127.0.0.1:8000"),
        ("http://127.0.0.1:9", "give the URL of a running engine"),
    ],
)
def test_wrong_use_ends_with_2_and_the_mend(url: str, mend: str) -> None:
    result = command(url, *WORDS)
    assert result.exit_code == 2
    assert mend in result.stderr


def test_a_key_comes_from_the_environment_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGINE_KEY", raising=False)
    result = command("http://127.0.0.1:9", *WORDS, "--api-key-env", "ENGINE_KEY")
    assert result.exit_code == 2
    assert "'ENGINE_KEY' is not set" in result.stderr


def test_a_model_that_is_not_served_is_told_with_those_that_are() -> None:
    with running(SimulatedEngine(QUICK)) as url:
        result = command(url, *WORDS, "--model", "other")
    assert result.exit_code == 2
    assert "--model is one of: m" in result.stderr
