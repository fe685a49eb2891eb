"""A stream that breaks off after its first token goes on elsewhere, over real HTTP."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration import engines
from tests.integration.engines import World, billed, text

ANSWER = "".join(f" t{n}" for n in range(8))


USED = "pool, outcome, prompt_tokens, completion_tokens, usage_source"
run = partial(engines.run, home="cut:3", vllm=True)


def events(stream: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("fault", ["cut:3", "error_event:3", "stall:3"])
def test_the_rest_comes_from_elsewhere_as_the_same_answer(tmp_path: Path, fault: str) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=8) as answer:
            assert answer.headers["x-orchestrator-pool"] == "a-home"
            body = await answer.text()
        assert text(body) == ANSWER
        assert body.endswith("data: [DONE]\n\n")
        assert len({event["id"] for event in events(body)}) == 1
        assert sum("role" in c["delta"] for e in events(body) for c in e["choices"]) == 1
        (asked,) = w.away.received
        assert asked.body["messages"][-1] == {"role": "assistant", "content": " t0 t1 t2"}
        assert asked.body["max_tokens"] == 5

    run(tmp_path, test, home=fault)
    (first, second) = billed(tmp_path, USED)
    reason = {"cut:3": "cut", "error_event:3": "engine_error", "stall:3": "stalled"}[fault]
    assert first == ("a-home", reason, 4, 3, "engine")
    assert (second[0], second[1], second[3]) == ("b-away", "complete", 5)


def test_the_client_is_told_the_use_of_the_whole_answer(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        options = {"include_usage": True}
        async with w.post(stream=True, max_tokens=8, stream_options=options) as answer:
            (told,) = [e["usage"] for e in events(await answer.text()) if e.get("usage")]
        assert (told["prompt_tokens"], told["completion_tokens"]) == (4, 8)

    run(tmp_path, test)


def test_an_answer_that_breaks_off_twice_goes_on_twice(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=8) as answer:
            body = await answer.text()
        assert text(body) == ANSWER
        assert [len(w.home.received), len(w.away.received)] == [2, 1]

    run(tmp_path, test, home="cut:3", away="cut:2")
    assert [(pool, tokens) for pool, _, _, tokens, _ in billed(tmp_path, USED)] == [
        ("a-home", 3),
        ("b-away", 2),
        ("a-home", 3),
    ]


@pytest.mark.parametrize(
    "field",
    [
        {"seed": 1},
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 0.5},
        {"something_new": 1},
    ],
)
def test_what_cannot_go_on_safely_ends_typed(tmp_path: Path, field: dict[str, Any]) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=8, **field) as answer:
            body = await answer.text()
        assert '"code":"stream_interrupted"' in body
        assert "[DONE]" not in body
        assert not w.away.received

    run(tmp_path, test)


def test_an_engine_that_may_not_be_vllm_is_not_asked_to_go_on(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=8) as answer:
            assert '"code":"stream_interrupted"' in await answer.text()
        assert not w.away.received

    run(tmp_path, test, vllm=False)


def test_restricted_data_goes_on_nowhere_that_it_may_not_be(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post("closed", stream=True, max_tokens=8) as answer:
            body = await answer.text()
        assert text(body) == " t0 t1 t2"
        assert '"code":"stream_interrupted"' in body
        assert not w.away.received

    run(tmp_path, test)


def test_an_answer_whose_end_alone_is_missing_is_whole(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=True, max_tokens=3) as answer:
            body = await answer.text()
        assert text(body) == " t0 t1 t2"
        assert body.endswith("data: [DONE]\n\n")
        assert not w.away.received

    run(tmp_path, test, home="cut:3")
