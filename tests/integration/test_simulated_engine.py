"""The simulated engine behaves as vLLM does."""

import asyncio
import json
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


async def events(http: aiohttp.ClientSession, path: str, **body: Any) -> list[dict[str, Any]]:
    async with http.post(path, json={"model": "m", "stream": True, **body}) as answer:
        lines = (await answer.text()).splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def test_usage_comes_throughout_where_it_is_asked_for() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        body = chat(max_tokens=2, stream_options=options)
        chunks = await events(http, "/v1/chat/completions", **body)
        assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 2]

    run(test)


def test_every_choice_says_the_same_and_is_counted() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        body = chat(max_tokens=2, n=3, stream_options={"include_usage": True})
        *chunks, last = await events(http, "/v1/chat/completions", **body)
        assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2] * 3
        assert last["usage"]["completion_tokens"] == 6

    run(test)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "assistant", "content": " t0 t1"}],
                "continue_final_message": True,
            },
        ),
        ("/v1/completions", {"prompt": "a t0 t1"}),
    ],
)
def test_a_continued_answer_goes_on_counting(path: str, body: dict[str, Any]) -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        async with http.post(path, json={"model": "m", "max_tokens": 2, **body}) as answer:
            assert " t2 t3" in await answer.text()

    run(test)


def test_named_events_come_in_vllms_order() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        message = await events(http, "/v1/messages", **chat(max_tokens=2))
        assert [event["type"] for event in message] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        response = await events(http, "/v1/responses", input="a", max_output_tokens=2)
        assert [event["type"].removeprefix("response.") for event in response] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event["sequence_number"] for event in response] == list(range(10))

    run(test)


def test_texts_are_embedded_ranked_and_scored() -> None:
    async def test(http: aiohttp.ClientSession) -> None:
        async with http.post("/v1/embeddings", json={"model": "m", "input": ["a", "b"]}) as answer:
            data = (await answer.json())["data"]
        assert [len(entry["embedding"]) for entry in data] == [8, 8]
        assert data[0]["embedding"] != data[1]["embedding"]
        ranked = {"model": "m", "query": "a b", "documents": ["c", "a b", "b"], "top_n": 2}
        async with http.post("/rerank", json=ranked) as answer:
            results = (await answer.json())["results"]
        assert [result["index"] for result in results] == [1, 2]
        scored = {"model": "m", "text_1": "a", "text_2": ["a", "b"]}
        async with http.post("/score", json=scored) as answer:
            assert [entry["score"] for entry in (await answer.json())["data"]] == [1, 0]

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
