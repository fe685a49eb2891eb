"""Who may call a running gateway: keys and tokens, their scopes, and their end."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.spec import Endpoint, Limits, Scope
from orchestrator.gateway import jwks
from tests.integration.engines import World, apply, run, scripted, serve, serve_gateway, world
from tests.tokens import ISSUER, RULES, SigningKey, key_set

KEY = SigningKey("k1")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}


async def ask(w: World, url: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with w.session.post(
        (url or w.url) + "/v1/chat/completions", json=CHAT, headers=named
    ) as answer:
        return answer.status, await answer.json()


async def status(w: World, credential: str, url: str = "") -> int:
    return (await ask(w, url, authorization=f"Bearer {credential}"))[0]


def test_a_revoked_key_is_refused_at_once_by_every_gateway(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async with serve_gateway(tmp_path) as other:
            for _ in range(20):
                key, plaintext = keys.create(tmp_path, "open")
                assert await status(w, plaintext) == 200
                assert await status(w, plaintext, other) == 200
                keys.revoke(tmp_path, key.id)
                assert await status(w, plaintext) == 401
                assert await status(w, plaintext, other) == 401

    run(tmp_path, test)


def test_a_rotated_key_and_the_new_one_both_work_for_the_overlap(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        key, old = keys.create(tmp_path, "open", scope=Scope(endpoints=["chat"]))
        second, new = keys.rotate(tmp_path, key.id, timedelta(hours=1))
        assert [await status(w, k) for k in (old, new)] == [200, 200]
        _, newest = keys.rotate(tmp_path, second.id, timedelta())
        assert [await status(w, k) for k in (old, new, newest)] == [200, 401, 200]

    run(tmp_path, test)


def test_a_broken_key_file_opens_and_closes_nothing(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        (tmp_path / keys.FILE).write_text("keys: [")
        assert await status(w, w.keys["open"]) == 200
        assert await status(w, "sk-aaaaaaaa-b") == 401

    run(tmp_path, test)


def test_a_key_is_taken_from_either_header_and_from_two_that_agree(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        key, other = w.keys["open"], w.keys["closed"]
        for expected, headers in (
            (200, {"x_api_key": key}),
            (200, {"authorization": f"Bearer {key}"}),
            (200, {"authorization": f"bearer {key}", "x_api_key": key}),
            (401, {"authorization": f"Bearer {key}", "x_api_key": other}),
            (401, {"authorization": f"Bearer {key}", "x_api_key": ""}),
            (401, {"authorization": f"Basic {key}", "x_api_key": key}),
            (401, {"authorization": key}),
            (401, {"x_api_key": f"Bearer {key}"}),
            (401, {}),
        ):
            answered, body = await ask(w, **headers)
            assert answered == expected, headers
            if expected == 401:
                assert set(body["error"]) == {"message", "type", "param", "code"}
                assert body["error"]["type"] == "authentication_error"
                assert key not in json.dumps(body)

    run(tmp_path, test)


async def scoped(
    w: World, tmp_path: Path, models: list[str] | None, endpoints: list[Endpoint] | None
) -> dict[str, tuple[int, dict[str, Any]]]:
    """What a key of this scope is answered, by what it asks for."""
    _, plaintext = keys.create(tmp_path, "open", scope=Scope(models=models, endpoints=endpoints))
    answers = {"chat": await ask(w, authorization=f"Bearer {plaintext}")}
    for name, path in (("models", "/v1/models"), ("model", "/v1/models/m")):
        headers = {"x-api-key": plaintext}
        async with w.session.get(w.url + path, headers=headers) as answer:
            answers[name] = answer.status, await answer.json()
    return answers


def test_a_key_asks_for_the_models_of_its_scope_alone_and_sees_no_others(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        # Of a workload that has lost the model since.
        answers = await scoped(w, tmp_path, ["other"], None)
        refused, body = answers["chat"]
        assert refused == 403
        assert body["error"]["type"] == "permission_error"
        assert body["error"]["message"] == "This key may use these models alone: other."
        assert body["error"]["param"] == "model"
        assert answers["models"][1]["data"] == []
        assert answers["model"][0] == 404
        answers = await scoped(w, tmp_path, ["m"], None)
        assert answers["chat"][0] == answers["model"][0] == 200
        assert [card["id"] for card in answers["models"][1]["data"]] == ["m"]
        assert len(w.home.received) == 1

    run(tmp_path, test)


def test_a_key_calls_the_endpoints_of_its_scope_alone(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        answers = await scoped(w, tmp_path, None, ["embeddings", "models"])
        refused, body = answers["chat"]
        assert refused == 403
        assert body["error"]["message"] == (
            "This key may use these endpoints alone: embeddings, models."
        )
        assert answers["models"][0] == 200
        answers = await scoped(w, tmp_path, None, ["chat"])
        assert [answers[name][0] for name in ("chat", "models", "model")] == [200, 403, 403]
        assert len(w.home.received) == 1

    run(tmp_path, test)


class Provider:
    """A server of keys, which may be made to fail."""

    def __init__(self) -> None:
        self.keys = [KEY]
        self.asked = 0
        self.fault = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.fault == "hang":
            await asyncio.sleep(60)
        if self.fault == "redirect":
            return web.Response(status=302, headers={"location": "/elsewhere"})
        if self.fault == "flood":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" " * 65536)
        if self.fault == "status":
            return web.Response(status=500, body=key_set(*self.keys))
        return web.Response(body=key_set(*self.keys))


async def with_provider(
    tmp_path: Path, test: Callable[[World, Provider], Awaitable[None]], fault: str = ""
) -> None:
    provider = Provider()
    provider.fault = fault
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(scripted(provider.answer)))
        w = await stack.enter_async_context(world(tmp_path))
        configuration = tmp_path / "all.yaml"
        document = yaml.safe_load(configuration.read_text())
        document["gateway"]["jwt"] = [
            {
                "issuer": ISSUER,
                "audience": "inference",
                "jwks_url": f"{url}/keys",
                "workloads": RULES,
            }
        ]
        configuration.write_text(yaml.safe_dump(document))
        apply(tmp_path)
        w.url = await stack.enter_async_context(serve_gateway(tmp_path))
        await test(w, provider)


def test_a_token_opens_what_its_claims_say(tmp_path: Path) -> None:
    async def test(w: World, provider: Provider) -> None:
        assert await status(w, KEY.token()) == 200
        assert (await ask(w, x_api_key=KEY.token()))[0] == 200
        answered, body = await ask(w, authorization=f"Bearer {KEY.token(groups='nobody')}")
        assert answered == 401
        assert body["error"]["message"] == "The API key or token is wrong or expired."
        assert await status(w, KEY.token(exp=1)) == 401
        assert await status(w, SigningKey("k1").token()) == 401
        assert await status(w, w.keys["open"]) == 200
        assert provider.asked == 1

    asyncio.run(with_provider(tmp_path, test))


def test_a_new_key_of_the_issuer_is_taken_when_a_token_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0)

    async def test(w: World, provider: Provider) -> None:
        assert await status(w, KEY.token()) == 200
        new = SigningKey("k2")
        provider.keys = [KEY, new]
        assert await status(w, new.token()) == 200

    asyncio.run(with_provider(tmp_path, test))


def test_tokens_with_unknown_keys_do_not_make_the_gateway_ask_each_time(tmp_path: Path) -> None:
    async def test(w: World, provider: Provider) -> None:
        strangers = [SigningKey(f"s{n}").token() for n in range(30)]
        assert set(await asyncio.gather(*(status(w, token) for token in strangers))) == {401}
        assert provider.asked == 1

    asyncio.run(with_provider(tmp_path, test))


@pytest.mark.parametrize("fault", ["hang", "redirect", "flood", "status"])
def test_a_provider_that_fails_refuses_its_own_tokens_and_delays_nobody_else(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 2)

    async def test(w: World, provider: Provider) -> None:
        waiting = asyncio.create_task(status(w, KEY.token()))
        async with asyncio.timeout(1.5):
            assert await status(w, w.keys["open"]) == 200
        assert await waiting == 401
        assert provider.asked == 1

    asyncio.run(with_provider(tmp_path, test, fault))


def test_limits_are_told_with_every_answer_of_a_limited_caller(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        limits = Limits(requests_per_minute=2, tokens_per_minute=1000)
        _, plaintext = keys.create(tmp_path, "open", limits=limits)
        w.keys["open"] = plaintext
        for stream, left in ((False, "1"), (True, "0")):
            async with w.post(stream=stream) as answer:
                assert answer.status == 200
                assert answer.headers["x-ratelimit-limit-requests"] == "2"
                assert answer.headers["x-ratelimit-remaining-requests"] == left
                assert answer.headers["x-ratelimit-reset-requests"] == "1m1s"
                assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
                await answer.read()
        async with w.post() as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 61
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
            error = (await answer.json())["error"]
            assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
        async with w.session.get(f"{w.url}/v1/models", headers={"x-api-key": plaintext}) as answer:
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        async with w.post(messages=[]) as answer:
            assert answer.status == 400
            assert answer.headers["x-ratelimit-limit-requests"] == "2"
        async with w.post("closed") as answer:
            assert not [name for name in answer.headers if name.startswith("X-Ratelimit")]
            assert answer.status == 200

    run(tmp_path, test)
