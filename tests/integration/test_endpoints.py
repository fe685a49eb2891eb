"""Every endpoint over real HTTP: relayed, recorded, refused, and closed to what must stay."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.simulate.faults import Fault
from tests.integration.engines import Handler, World, world

CHAT = {"messages": [{"role": "user", "content": "a b"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**CHAT, "max_tokens": 3},
    "/v1/completions": {"prompt": "a b", "max_tokens": 3},
    "/v1/responses": {"input": "a b", "max_output_tokens": 3},
    "/v1/messages": {**CHAT, "max_tokens": 3},
    "/v1/messages/count_tokens": CHAT,
    "/v1/embeddings": {"input": ["a b", "c"]},
    "/tokenize": {"prompt": "a b"},
    "/v1/tokenize": CHAT,
    "/detokenize": {"tokens": [1, 2]},
    "/v1/detokenize": {"tokens": [1, 2]},
    "/rerank": {"query": "a", "documents": ["b", "a"]},
    "/v1/rerank": {"query": "a", "documents": ["b", "a"]},
    "/v2/rerank": {"query": "a", "documents": ["b", "a"]},
    "/score": {"text_1": "a", "text_2": ["b", "a"]},
    "/v1/score": {"text_1": "a", "text_2": ["b", "a"]},
}
STREAMS = [p for p in BODIES if p.startswith("/v1/") and "max" in json.dumps(BODIES[p])]
MEASURES = [p for p in BODIES if p not in STREAMS]
TEXT = " t0 t1 t2"
SECRET = (
    "The board has decided to close the plant in the north by the end of next year and to move "
    "all of its machines to the new site, which nobody outside of this room knows of."
)


def run(
    tmp_path: Path,
    test: Callable[[World], Awaitable[None]],
    home: str | Handler = "",
    away: str | Handler = "",
    total_s: float = 60,
) -> None:
    async def inside() -> None:
        async with world(tmp_path, home, away, total_s) as made:
            await test(made)

    asyncio.run(inside())


async def ask(
    w: World, path: str, workload: str = "open", restricted: bool = False, **body: Any
) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {w.keys[workload]}"}
    if restricted:
        headers["x-orchestrator-data-class"] = "restricted"
    async with w.session.post(w.url + path, json={"model": "m", **body}, headers=headers) as answer:
        return answer.status, await answer.text()


def used(tmp_path: Path) -> list[tuple[Any, ...]]:
    return (
        sqlite3.connect(tmp_path / "ledger.sqlite")
        .execute(
            "SELECT pool, prompt_tokens, completion_tokens, usage_source, outcome FROM usage"
            " ORDER BY attempt"
        )
        .fetchall()
    )


def text_of(stream: str) -> str:
    """What a stream's deltas say, in any dialect."""
    said = ""
    for line in stream.splitlines():
        if not line.startswith("data: {"):
            continue
        value = json.loads(line[6:])
        for choice in value.get("choices", []):
            said += choice.get("text") or choice.get("delta", {}).get("content") or ""
        delta = value.get("delta", "")
        said += delta if isinstance(delta, str) else delta.get("text", "")
    return said


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
    ((pool, _, completion_tokens, source, outcome),) = used(tmp_path)
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
    assert used(tmp_path) == [("a-home", PROMPT_TOKENS.get(path, 2), 3, "engine", "complete")]


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_without_usage_is_counted(tmp_path: Path, path: str) -> None:
    async def test(w: World) -> None:
        status, stream = await ask(w, path, **BODIES[path], stream=True)
        assert (status, text_of(stream)) == (200, TEXT)

    run(tmp_path, test, home="no_usage")
    ((_, _, completion_tokens, source, _),) = used(tmp_path)
    assert (completion_tokens, source) == (3, "counted")


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


# What must stay


IMAGE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
IBAN = "DE89 3704 0044 0532 0130 00"
SENSITIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "instructions": ("/v1/responses", {"input": "hi", "instructions": IBAN}),
    "an input": ("/v1/responses", {"input": IBAN}),
    "an input item": ("/v1/responses", {"input": [{"role": "user", "content": IBAN}]}),
    "an input part": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": IBAN}]}]},
    ),
    "a function's arguments": (
        "/v1/responses",
        {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": IBAN}]},
    ),
    "a function's output": (
        "/v1/responses",
        {"input": [{"type": "function_call_output", "call_id": "1", "output": IBAN}]},
    ),
    "reasoning": (
        "/v1/responses",
        {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": IBAN}]}]},
    ),
    "hidden reasoning": (
        "/v1/responses",
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]},
    ),
    "an input image": (
        "/v1/responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "http://a"}]}
            ]
        },
    ),
    "a system prompt": ("/v1/messages", {**CHAT, "system": [{"type": "text", "text": IBAN}]}),
    "a message": ("/v1/messages", {"messages": [{"role": "user", "content": IBAN}]}),
    "thinking": (
        "/v1/messages",
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": IBAN}]}]},
    ),
    "a tool's input": (
        "/v1/messages",
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "input": {"a": [IBAN]}}]}
            ]
        },
    ),
    "a tool's result": (
        "/v1/messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": [{"text": IBAN}]}]}
            ]
        },
    ),
    "an image": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "source": IMAGE}]}]},
    ),
    "a document": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "document", "source": IMAGE}]}]},
    ),
    "a message to be counted": (
        "/v1/messages/count_tokens",
        {"messages": [{"role": "user", "content": IBAN}]},
    ),
    "a text to be embedded": ("/v1/embeddings", {"input": ["a", IBAN]}),
    "tokens to be embedded": ("/v1/embeddings", {"input": [[1, 2]]}),
    "a text to be tokenized": ("/tokenize", {"prompt": IBAN}),
    "tokens": ("/detokenize", {"tokens": [1, 2]}),
    "tokens in digits": ("/detokenize", {"tokens": ["1", "2"]}),
    "a query": ("/rerank", {"query": IBAN, "documents": ["a"]}),
    "a document to be ranked": ("/v2/rerank", {"query": "a", "documents": ["a", IBAN]}),
    "a text to be scored": ("/score", {"text_1": "a", "text_2": [IBAN]}),
    "an item to be scored": ("/v1/score", {"queries": "a", "items": [IBAN]}),
}


@pytest.mark.parametrize("place", SENSITIVE)
def test_sensitive_content_stays_wherever_a_request_has_it(tmp_path: Path, place: str) -> None:
    async def test(w: World) -> None:
        path, body = SENSITIVE[place]
        limit = {"max_tokens": 3} if path == "/v1/messages" else {}
        status, answer = await ask(w, path, **limit, **body)
        assert status == 503, answer
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home="status")


QUOTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SECRET}]},
    "/v1/completions": {"prompt": SECRET},
    "/v1/responses": {"input": [{"type": "function_call_output", "output": SECRET}]},
    "/v1/messages": {
        "max_tokens": 3,
        "messages": [{"role": "user", "content": [{"type": "tool_result", "content": SECRET}]}],
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": SECRET}]},
    "/v1/embeddings": {"input": [SECRET]},
    "/tokenize": {"prompt": SECRET},
    "/rerank": {"query": "a", "documents": [SECRET]},
    "/score": {"text_1": SECRET, "text_2": "a"},
}


@pytest.mark.parametrize("first", QUOTES)
def test_what_was_raised_at_one_endpoint_is_raised_at_all(tmp_path: Path, first: str) -> None:
    async def test(w: World) -> None:
        status, _ = await ask(w, first, restricted=True, **QUOTES[first])
        assert status == 200
        w.home.faults.append(Fault.parse("status"))
        for path, body in QUOTES.items():
            assert (await ask(w, path, **body))[0] == 503
        assert not w.away.received

    run(tmp_path, test)


def later(path: str, answer: str) -> dict[str, Any]:
    """The next turn, after a greeting and its answer, as an endpoint is sent it."""
    said = [("user", "hi"), ("assistant", answer), ("user", "And then?")]
    if path == "/v1/responses":
        kinds = {"user": "input_text", "assistant": "output_text"}
        items = [
            {"type": "message", "role": r, "content": [{"type": kinds[r], "text": t}]}
            for r, t in said
        ]
        return {"input": items}
    blocks = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in said]
    return {"messages": blocks, "max_tokens": 3}


GREETINGS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3},
    "/v1/responses": {"input": "hi", "max_output_tokens": 3},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("first", GREETINGS)
def test_a_conversation_is_known_by_its_history_wherever_it_goes_on(
    tmp_path: Path, first: str, stream: bool
) -> None:
    async def test(w: World) -> None:
        status, answer = await ask(w, first, restricted=True, stream=stream, **GREETINGS[first])
        assert status == 200
        assert TEXT in answer or text_of(answer) == TEXT
        w.home.faults.append(Fault.parse("status"))
        for path in GREETINGS:
            assert (await ask(w, path, **later(path, TEXT)))[0] == 503
        assert not w.away.received
        assert (await ask(w, first, **later(first, " t0 t1 t3")))[0] == 200

    run(tmp_path, test)


def test_the_text_of_tokens_is_remembered_as_what_they_were(tmp_path: Path) -> None:
    tokens = list(range(100, 130))
    text = "".join(f" t{n}" for n in tokens)

    async def test(w: World) -> None:
        assert (await ask(w, "/detokenize", tokens=tokens))[0] == 200
        w.home.faults.append(Fault.parse("status"))
        assert (await ask(w, "/v1/completions", prompt=text))[0] == 503
        assert not w.away.received

    run(tmp_path, test)


# Clients as they are


def in_thread(
    tmp_path: Path, test: Callable[[World], None], home: str = "", total_s: float = 60
) -> None:
    async def inside(w: World) -> None:
        await asyncio.to_thread(test, w)

    run(tmp_path, inside, home, total_s=total_s)


def test_the_anthropic_client_as_it_is(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = anthropic.Anthropic(api_key=w.keys["open"], base_url=w.url, max_retries=0)
        asked: Any = {"model": "m", "max_tokens": 3, "messages": CHAT["messages"]}
        message = client.messages.create(**asked)
        assert message.content[0].text == TEXT
        assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 3)
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream) == TEXT
            assert stream.get_final_message().usage.output_tokens == 3
        counted = client.messages.count_tokens(model="m", messages=asked["messages"])
        assert counted.input_tokens == 5
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asked | {"model": "none"})
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**asked | {"max_tokens": -1})
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="wrong").messages.create(**asked)

    in_thread(tmp_path, test)


def test_the_anthropic_client_learns_of_a_stream_that_broke_off(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = anthropic.Anthropic(api_key=w.keys["open"], base_url=w.url, max_retries=0)
        asked: Any = {"model": "m", "max_tokens": 3, "messages": CHAT["messages"]}
        said = ""
        with pytest.raises(anthropic.APIStatusError) as caught:  # noqa: SIM117
            with client.messages.stream(**asked) as stream:
                for text in stream.text_stream:
                    said += text
        assert said == " t0 t1"
        assert caught.value.error_code == "stream_interrupted"

    in_thread(tmp_path, test, home="cut:2")


def test_the_openai_client_as_it_is(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = openai.OpenAI(api_key=w.keys["open"], base_url=f"{w.url}/v1", max_retries=0)
        response = client.responses.create(model="m", input="a b", max_output_tokens=3)
        assert response.output_text == TEXT
        with client.responses.stream(model="m", input="a b", max_output_tokens=3) as stream:
            events = list(stream)
            assert stream.get_final_response().output_text == TEXT
        assert events[0].type == "response.created"
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
        vectors = client.embeddings.create(model="m", input=["a", "b"])
        assert [len(v.embedding) for v in vectors.data] == [8, 8]
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="m", input="a", previous_response_id="resp_1")
        assert caught.value.param == "previous_response_id"

    in_thread(tmp_path, test)


def test_the_openai_client_learns_of_a_response_that_broke_off(tmp_path: Path) -> None:
    def test(w: World) -> None:
        client = openai.OpenAI(api_key=w.keys["open"], base_url=f"{w.url}/v1", max_retries=0)
        *_, last = client.responses.create(model="m", input="a b", max_output_tokens=3, stream=True)
        assert last.type == "error"
        assert last.code == "stream_interrupted"

    in_thread(tmp_path, test, home="cut:2")
