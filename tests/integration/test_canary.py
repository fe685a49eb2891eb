"""A canary that must not leave the site: whatever fails at home, however it is written, whoever
comes back with it. The engine in the cloud keeps every byte that it gets."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestrator.config import keys
from tests.integration.engines import World, serve_gateway, world

IBAN = "DE89 3704 0044 0532 0130 00"
CARD = "4111 1111 1111 1111"
MARKED = (
    "The canary sings in the coal mine tonight, and nobody but the two of us may ever hear a "
    "single word of its song, whatever they may ask and however long they may wait for it."
)
"""Harmless to a classifier: only a label says that it is not."""
HARMLESS = "What is the tallest mountain of the world, and who was the first to climb it?"

FAULTS = [
    "status",
    "rate_limit",
    "unauthorized",
    "context_length",
    "hang",
    "malformed",
    "cut",
    "stall",
    "error_event",
    "cut:2",
    "stall:2",
    "error_event:2",
]
"""`cut`, `stall` and `error_event` come after the role chunk of a stream, which is no content."""

FAIL_OVER = [f for f in FAULTS if f not in ("context_length", "cut:2", "stall:2", "error_event:2")]


def run(tmp_path: Path, test: Callable[[World], Awaitable[None]], home: str = "") -> None:
    async def inside() -> None:
        async with world(tmp_path, home, total_s=2) as made:
            await test(made)

    asyncio.run(inside())


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"model": "m", "max_tokens": 3, "messages": [{"role": role, "content": text}]}


async def ask(
    w: World,
    body: dict[str, Any],
    path: str = "/v1/chat/completions",
    url: str = "",
    workload: str = "open",
    **headers: str,
) -> tuple[int, str]:
    """Status and text."""
    named = {f"x-orchestrator-{name.replace('_', '-')}": value for name, value in headers.items()}
    authorization = {"authorization": f"Bearer {w.keys[workload]}"}
    async with w.session.post(
        (url or w.url) + path, json=body, headers=authorization | named
    ) as answer:
        return answer.status, await answer.text()


def stayed(w: World, *canaries: str) -> bool:
    away = b"\n".join(orjson.dumps(r.body) for r in w.away.received).decode()
    return not any(canary in away for canary in canaries)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_at_home_sensitive_content_is_not_sent_away(
    tmp_path: Path, fault: str, stream: bool
) -> None:
    async def test(w: World) -> None:
        for _ in range(2):
            await asyncio.gather(
                *(
                    ask(w, said(text) | {"stream": stream}, **headers)
                    for text, headers in (
                        (f"Transfer it to {IBAN}.", {}),
                        (f"Charge my card {CARD}, please.", {}),
                        (MARKED, {"data_class": "restricted"}),
                        (MARKED, {"data_class": "restricted"}),  # enough to eject the endpoint
                    )
                )
            )
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home=fault)


@pytest.mark.parametrize("stream", [True, False])
def test_with_home_dead_sensitive_content_is_refused_and_harmless_content_sent_away(
    tmp_path: Path, stream: bool
) -> None:
    async def inside() -> None:
        async with world(tmp_path, home_is_dead=True, total_s=2) as w:
            for _ in range(4):  # often enough to eject it
                status, _ = await ask(w, said(f"Transfer it to {IBAN}.") | {"stream": stream})
                assert status == 503
                status, _ = await ask(w, said(MARKED) | {"stream": stream}, data_class="restricted")
                assert status == 503
            assert not w.away.received
            assert (await ask(w, said(HARMLESS) | {"stream": stream}))[0] == 200
            assert w.away.received

    asyncio.run(inside())


@pytest.mark.parametrize("fault", FAIL_OVER)
def test_under_the_same_failures_harmless_content_is_sent_away(tmp_path: Path, fault: str) -> None:
    async def test(w: World) -> None:
        status, _ = await ask(w, said(HARMLESS) | {"stream": fault != "malformed"})
        assert status == 200
        assert w.away.received

    run(tmp_path, test, home=fault)


def obfuscated(text: str) -> dict[str, str]:
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return {
        "full width": text.translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)}),
        "spaced": " ".join(text.replace(" ", "")),
        "non-breaking hyphens": text.replace(" ", "\u2011"),
        "zero width": "\u200b".join(text),
        "base64": base64.b64encode(text.encode()).decode(),
        "hex": text.encode().hex(),
        "percent": "".join(f"%{b:02x}" for b in text.encode()),
        "words": " ".join(digits[int(c)] for c in text if c.isdigit()),
    }


@pytest.mark.parametrize("form", obfuscated(CARD))
def test_a_card_number_is_kept_in_whatever_form_it_is_written(tmp_path: Path, form: str) -> None:
    async def test(w: World) -> None:
        await ask(w, said(f"Please charge {obfuscated(CARD)[form]} for the order."))
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home="status")


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": arguments}}
    return {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Pay it."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
    }


PLACES = {
    "system": said("Hello.") | {"messages": [{"role": "system", "content": IBAN}]},
    "an earlier turn": {
        "model": "m",
        "messages": [
            {"role": "user", "content": f"My account is {IBAN}."},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": "Thank you."},
        ],
    },
    "a content part": {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": IBAN}]}],
    },
    "tool-call arguments": called(f'{{"to": "{IBAN}"}}'),
    "a tool's result": said(f'{{"iban": "{IBAN}"}}', role="tool"),
    "a tool's definition": said("Hello.")
    | {"tools": [{"type": "function", "function": {"name": "pay", "description": IBAN}}]},
    "a field that nobody knows": said("Hello.") | {"metadata": {"note": [IBAN]}},
}


@pytest.mark.parametrize("place", PLACES)
def test_sensitive_text_is_found_wherever_a_request_has_it(tmp_path: Path, place: str) -> None:
    async def test(w: World) -> None:
        await ask(w, PLACES[place])
        assert w.home.received
        assert not w.away.received

    run(tmp_path, test, home="status")


OTHER_PATHS = {
    "/v1/completions": {"prompt": ["Hello", f"Pay to {IBAN}"]},
    "/v1/embeddings": {"input": [IBAN]},
    "/v1/responses": {"input": IBAN},
    "/v1/messages": {"messages": [{"role": "user", "content": IBAN}]},
    "/v1/moderations": {"input": IBAN},
    "/v1/rerank": {"query": IBAN, "documents": [IBAN]},
    "/v1/files": {"file": IBAN},
    "/v1/batches": {"input": IBAN},
    "/v1/audio/transcriptions": {"prompt": IBAN},
}


@pytest.mark.parametrize("fault", ["", "status"])
@pytest.mark.parametrize("path", OTHER_PATHS)
def test_no_other_endpoint_lets_it_out(tmp_path: Path, path: str, fault: str) -> None:
    async def test(w: World) -> None:
        status, _ = await ask(w, {"model": "m"} | OTHER_PATHS[path], path)
        assert status != 500
        assert not w.away.received

    run(tmp_path, test, home=fault)


async def answered(w: World, text: str, **headers: str) -> dict[str, Any]:
    """One turn that is labelled restricted, and the history that a client then has."""
    body = said(text) | {"stream": False}
    status, answer = await ask(w, body, data_class="restricted", **headers)
    assert status == 200
    content = orjson.loads(answer)["choices"][0]["message"]["content"]
    return body | {
        "messages": [*body["messages"], {"role": "assistant", "content": content}],
    }


def fails_now(w: World) -> None:
    from orchestrator.simulate.faults import Fault

    w.home.faults.append(Fault.parse("status"))


@pytest.mark.parametrize("text", ["hi", MARKED])
def test_a_later_turn_is_known_by_its_history_alone(tmp_path: Path, text: str) -> None:
    async def test(w: World) -> None:
        history = await answered(w, text)
        fails_now(w)
        later = history | {
            "messages": [*history["messages"], {"role": "user", "content": "And then?"}]
        }
        status, _ = await ask(w, later)
        assert status == 503
        assert not w.away.received

    run(tmp_path, test)


def test_a_later_turn_that_quotes_an_earlier_one_is_known(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await answered(w, f"{MARKED} {MARKED}")
        fails_now(w)
        await ask(w, said(f"Before, I told you:\n> {MARKED}\nWas that right?"))
        assert not w.away.received
        await ask(w, said(HARMLESS))
        assert w.away.received

    run(tmp_path, test)


def test_a_session_id_holds_without_any_history_and_under_another_key(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        await answered(w, "hi", session="s-1")
        w.keys["open"] = keys.create(tmp_path, "open")[1]
        async with asyncio.timeout(10):
            while (await ask(w, said("hello"), session="s-1"))[0] != 200:
                await asyncio.sleep(0.1)
        fails_now(w)
        assert (await ask(w, said("Go on."), session="s-1"))[0] == 503
        assert not w.away.received

    run(tmp_path, test)


def test_another_replica_and_one_after_a_restart_know_it_too(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with AsyncExitStack() as stack:
            other = await stack.enter_async_context(serve_gateway(tmp_path))
            history = await answered(w, MARKED)
            fails_now(w)
            later = history | {
                "messages": [*history["messages"], {"role": "user", "content": "And then?"}]
            }
            assert (await ask(w, later, url=other))[0] == 503
        async with serve_gateway(tmp_path) as restarted:
            assert (await ask(w, later, url=restarted))[0] == 503
        assert not w.away.received

    run(tmp_path, test)
