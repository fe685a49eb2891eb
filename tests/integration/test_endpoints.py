"""Every endpoint over real HTTP: relayed, recorded, refused."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.gateway.dialects import ENDPOINTS
from tests.integration.asking import BODIES, MEASURES, STREAMS, TEXT, ask, text_of
from tests.integration.engines import World, billed, run, world

USED = "pool, prompt_tokens, completion_tokens, usage_source, outcome"
ENDS = {
    "/v1/chat/completions": "data: [DONE]\n\n",
    "/v1/completions": "data: [DONE]\n\n",
    "/v1/messages": 'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "/v1/responses": ',"type":"response.completed"}\n\n',
}
PROMPT_TOKENS = {"/v1/chat/completions": 5, "/v1/messages": 5}


def test_every_endpoint_is_covered_here() -> None:
    assert set(BODIES) == set(ENDPOINTS)
    assert set(STREAMS) == set(ENDS)


@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_passes_and_is_recorded(tmp_path: Path, path: str) -> None:
    async def test(w: World) -> None:
        status, answer = await ask(w, path, **BODIES[path], unheard_of=[1])
        assert status == 200, answer
        assert TEXT in answer or path in MEASURES
        (received,) = w.home.received
        assert received.path == ENDPOINTS[path].upstream_path
        assert received.body["unheard_of"] == [1]

    run(tmp_path, test)
    ((pool, _, completion_tokens, source, outcome),) = billed(tmp_path, USED)
    assert (pool, source, outcome) == ("a-home", "engine", "complete")
    assert completion_tokens == (0 if path in MEASURES else 3)


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_passes_and_is_recorded(tmp_path: Path, path: str) -> None:
    async def test(w: World) -> None:
        status, stream = await ask(w, path, **BODIES[path], stream=True)
        assert status == 200
        assert text_of(stream) == TEXT
        assert stream.endswith(ENDS[path])

    run(tmp_path, test)
    assert billed(tmp_path, USED) == [
        ("a-home", PROMPT_TOKENS.get(path, 2), 3, "engine", "complete")
    ]


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_without_usage_is_counted(tmp_path: Path, path: str) -> None:
    async def test(w: World) -> None:
        status, stream = await ask(w, path, **BODIES[path], stream=True)
        assert (status, text_of(stream)) == (200, TEXT)

    run(tmp_path, test, home="no_usage")
    ((_, _, completion_tokens, source, _),) = billed(tmp_path, USED)
    assert (completion_tokens, source) == (3, "counted")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*STREAMS, "/v1/embeddings", "/tokenize"])
def test_who_leaves_before_the_engine_has_counted_is_billed_its_prompt_by_its_length(
    tmp_path: Path, path: str, stream: bool
) -> None:
    body = BODIES[path] | ({"stream": True} if stream else {}) | {"user": "a" * 400}

    async def test(w: World) -> None:
        asking = asyncio.create_task(ask(w, path, **body))
        async with asyncio.timeout(10):
            while not w.home.received:
                await asyncio.sleep(0.01)
            asking.cancel()
            while not w.home.cancelled:
                await asyncio.sleep(0.01)

    run(tmp_path, test, home="hang")
    ((_, prompt_tokens, completion_tokens, source, outcome),) = billed(tmp_path, USED)
    assert (completion_tokens, source, outcome) == (0, "counted", "cancelled")
    # A tokenizer takes no place on a GPU.
    assert prompt_tokens == 0 if path == "/tokenize" else 100 < prompt_tokens < 200


@pytest.mark.parametrize("home", ["status", "unreachable"])
def test_an_endpoint_that_took_nothing_in_is_billed_nothing(tmp_path: Path, home: str) -> None:
    async def test() -> None:
        dead = home == "unreachable"
        async with (
            world(tmp_path, "" if dead else home, home_is_dead=dead) as w,
            w.post() as answer,
        ):
            assert answer.status == 200

    asyncio.run(test())
    failed, complete = billed(tmp_path, USED)
    assert failed[1:3] == (0, 0)
    assert complete[1:] == (4, 3, "engine", "complete")


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("fault", ["status", "cut", "error_event"])
def test_a_stream_that_fails_before_its_first_token_comes_from_elsewhere(
    tmp_path: Path, path: str, fault: str
) -> None:
    async def test(w: World) -> None:
        status, stream = await ask(w, path, **BODIES[path], stream=True)
        assert (status, text_of(stream)) == (200, TEXT)
        assert len(w.home.received) == len(w.away.received) == 1

    run(tmp_path, test, home=fault)


NAMED = ["/v1/messages", "/v1/responses"]


@pytest.mark.parametrize("path", NAMED)
@pytest.mark.parametrize("fault", ["cut:2", "error_event:2"])
def test_a_stream_that_breaks_off_ends_typed_in_its_own_dialect(
    tmp_path: Path, path: str, fault: str
) -> None:
    async def test(w: World) -> None:
        status, stream = await ask(w, path, **BODIES[path], stream=True)
        assert (status, text_of(stream)) == (200, " t0 t1")
        *_, last = stream.split("\n\n")[:-1]
        assert last.startswith("event: error\ndata: {")
        assert "stream_interrupted" in last
        assert "EngineCore" not in stream
        assert not w.away.received

    run(tmp_path, test, home=fault)


@pytest.mark.parametrize("path", [p for p in MEASURES if "detokenize" not in p])
@pytest.mark.parametrize("fault", ["status", "rate_limit", "malformed"])
def test_what_only_measures_fails_over_too(tmp_path: Path, path: str, fault: str) -> None:
    async def test(w: World) -> None:
        status, _ = await ask(w, path, **BODIES[path])
        assert status == 200
        assert w.away.received

    run(tmp_path, test, home=fault)


@pytest.mark.parametrize("path", BODIES)
def test_an_engine_without_the_endpoint_is_not_blamed(tmp_path: Path, path: str) -> None:
    async def nothing(_: web.Request) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=404)

    async def test(w: World) -> None:
        status, answer = await ask(w, path, **BODIES[path])
        assert status == 404
        assert "endpoint_not_offered" in answer
        assert "upstream_failures_total{" not in await w.metrics()

    run(tmp_path, test, home=nothing)


@pytest.mark.parametrize("path", BODIES)
def test_what_the_engine_finds_wrong_reaches_the_client_in_its_own_dialect(
    tmp_path: Path, path: str
) -> None:
    async def test(w: World) -> None:
        status, answer = await ask(w, path, **BODIES[path])
        assert status == 400
        error = json.loads(answer)["error"]
        assert error["message"] == "This model's maximum context length is 16 tokens."
        assert ("details" if path.startswith("/v1/messages") else "code") in error

    run(tmp_path, test, home="context_length")


@pytest.mark.parametrize("path", BODIES)
def test_the_gateways_own_refusals_come_in_the_dialect_too(tmp_path: Path, path: str) -> None:
    async def test(w: World) -> None:
        for status, method, headers, body in (
            (401, "POST", {}, b"{}"),
            (405, "GET", {}, b""),
            (400, "POST", {"authorization": f"Bearer {w.keys['open']}"}, b"{"),
            (404, "POST", {"authorization": f"Bearer {w.keys['open']}"}, None),
        ):
            given = {"model": "none", **BODIES[path]} if body is None else None
            async with w.session.request(
                method, w.url + path, headers=headers, data=body, json=given
            ) as answer:
                assert answer.status == status
                value = await answer.json()
            if path.startswith("/v1/messages"):
                assert value["type"] == "error"
                assert value["error"]["type"].endswith("_error")
            else:
                assert set(value["error"]) == {"message", "type", "param", "code"}
        assert not w.home.received

    run(tmp_path, test)
