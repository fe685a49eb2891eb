"""A canary at every endpoint: whatever fails at home, it does not leave, and it is known again."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.simulate.faults import Fault
from tests.integration.asking import CHAT, TEXT, ask, text_of
from tests.integration.engines import World, run

SECRET = (
    "The board has decided to close the plant in the north by the end of next year and to move "
    "all of its machines to the new site, which nobody outside of this room knows of."
)
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
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "data:image/png,aa"}],
                }
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
