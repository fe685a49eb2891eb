"""The simulated engine behaves as vLLM does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from orchestrator.signals.engine import parse
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from orchestrator.simulate.faults import Fault, FaultKind
from tests.integration.engines import serve_engine, text

SPEC = EngineSpec("m", ttft_s=0.01, itl_s=0.005, max_num_seqs=2, max_model_len=50)
Test = Callable[[aiohttp.ClientSession], Awaitable[None]]


def run(test: Test, *faults: str, spec: EngineSpec = SPEC) -> SimulatedEngine:
    engines: list[SimulatedEngine] = []

    async def inside() -> None:
        engines.append(SimulatedEngine(spec, [Fault.parse(f) for f in faults]))
        async with serve_engine(engines[0]) as url, aiohttp.ClientSession(url) as session:
            await test(session)

    asyncio.run(inside())
    return engines[0]


def chat(**body: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "a b c"}], **body}


def test_an_answer_has_the_tokens_that_were_asked_for_and_counts_them() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        async with http.post("/v1/chat/completions", json=chat(max_tokens=4)) as answer:
            body = await answer.json()
        assert body["choices"][0]["message"]["content"] == " t0 t1 t2 t3"
        assert body["usage"] == {
            "prompt_tokens": 6,
            "completion_tokens": 4,
            "total_tokens": 10,
            "prompt_tokens_details": None,
        }
        async with http.post("/tokenize", json=chat()) as answer:
            assert (await answer.json())["count"] == 6

    run(test)


def test_a_stream_is_role_tokens_usage_done() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        body = chat(max_tokens=2, stream=True, stream_options={"include_usage": True})
        async with http.post("/v1/chat/completions", json=body) as answer:
            events = (await answer.text()).split("\n\n")
        assert '"role":"assistant"' in events[0]
        assert text("\n".join(events)) == " t0 t1"
        assert '"finish_reason":"length"' in events[2]
        assert '"choices":[]' in events[3]
        assert events[4] == "data: [DONE]"

    run(test)


def test_what_does_not_fit_or_is_not_served_is_refused_as_vllm_does() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        for status, body in (
            (404, chat() | {"model": "other"}),
            (400, chat(max_tokens=45)),
            (400, {"model": "m"}),
        ):
            async with http.post("/v1/chat/completions", json=body) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["code"] == status

    run(test)


def test_requests_past_the_batch_wait_and_the_metrics_say_so() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        async def one() -> None:
            async with http.post("/v1/completions", json=request) as answer:
                await answer.read()

        request = {"model": "m", "prompt": "a", "max_tokens": 40}
        requests = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0.1)
        async with http.get("/metrics") as answer:
            metrics = parse(await answer.text())
        assert (metrics.running, metrics.waiting) == (2, 3)
        await asyncio.gather(*requests)
        async with http.get("/metrics") as answer:
            exposition = await answer.text()
        assert 'vllm:generation_tokens_total{engine="0",model_name="m"} 200.0' in exposition
        assert parse(exposition).running == 0

    run(test)


def test_a_client_that_leaves_gives_its_place_back() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        with pytest.raises(TimeoutError):
            await http.post(
                "/v1/completions",
                json={"model": "m", "prompt": "a", "max_tokens": 45},
                timeout=aiohttp.ClientTimeout(total=0.05),
            )
        await asyncio.sleep(0.05)
        async with http.get("/metrics") as answer:
            assert parse(await answer.text()).running == 0

    assert run(test).cancelled == 1


def test_faults_meet_their_share_of_requests_by_seed() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        statuses = []
        for _ in range(40):
            async with http.post("/v1/completions", json=request) as answer:
                statuses.append(answer.status)
        assert 5 < statuses.count(500) < 35

    request = {"model": "m", "prompt": "a", "max_tokens": 1}
    run(test, "status:0:0.5", spec=EngineSpec("m", ttft_s=0))


def test_a_fault_is_written_as_kind_tokens_rate() -> None:
    assert Fault.parse("cut:3:0.1") == Fault(FaultKind.CUT, 3, 0.1)
    for wrong in ("bang", "cut:x", "cut:1:2", "cut:1:0.5:9"):
        with pytest.raises(ValueError, match="AFTER_TOKENS"):
            Fault.parse(wrong)
