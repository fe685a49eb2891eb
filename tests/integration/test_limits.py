"""Limits over two gateways with one state directory, counted by what the engine received."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import yaml

from orchestrator.config import keys
from orchestrator.config.spec import Limits
from tests.integration.engines import World, apply, serve_gateway, world


def run(
    tmp_path: Path,
    test: Callable[[World, list[str]], Awaitable[None]],
    home: str = "",
    limits: dict[str, int] | None = None,
) -> None:
    """With the URLs of two gateways; `limits`: of the workload `closed`."""

    async def inside() -> None:
        async with AsyncExitStack() as stack:
            w = await stack.enter_async_context(world(tmp_path, home, max_open=400))
            configuration = tmp_path / "all.yaml"
            document = yaml.safe_load(configuration.read_text())
            document["workloads"][1]["limits"] = limits or {}
            configuration.write_text(yaml.safe_dump(document))
            apply(tmp_path)
            urls = [await stack.enter_async_context(serve_gateway(tmp_path)) for _ in range(2)]
            await test(w, urls)

    asyncio.run(inside())


def limited(tmp_path: Path, w: World, workload: str = "closed", **limits: int) -> None:
    w.keys[workload] = keys.create(tmp_path, workload, limits=Limits(**limits))[1]


async def ask(
    w: World, urls: list[str], times: int, workload: str = "closed", **body: object
) -> Counter[int]:
    """At once, by turns: how often each status came."""

    async def one(number: int) -> int:
        world = World(urls[number % 2], w.home, w.away, w.session, w.keys)
        async with world.post(workload, **body) as answer:
            await answer.read()
            return int(answer.status)

    return Counter(await asyncio.gather(*(one(number) for number in range(times))))


def test_two_gateways_let_through_what_a_key_may_ask_for_and_not_one_more(tmp_path: Path) -> None:
    async def test(w: World, urls: list[str]) -> None:
        limited(tmp_path, w, requests_per_minute=37)
        statuses = await ask(w, urls, 200)
        assert set(statuses) == {200, 429}
        assert len(w.home.received) == statuses[200] == 37
        assert await ask(w, urls, 20) == {429: 20}

    run(tmp_path, test)


def test_all_keys_of_a_workload_share_its_limit(tmp_path: Path) -> None:
    async def test(w: World, urls: list[str]) -> None:
        for _ in range(4):
            limited(tmp_path, w, requests_per_minute=10)
            await ask(w, urls, 20)
        assert len(w.home.received) == 25
        assert await ask(w, urls, 10, "open") == {200: 10}

    run(tmp_path, test, limits={"requests_per_minute": 25})


def test_tokens_are_settled_by_what_requests_used_whichever_gateway_they_came_to(
    tmp_path: Path,
) -> None:
    async def test(w: World, urls: list[str]) -> None:
        # Each leaves its length to the engine: more than 500 are reserved, and 20 used.
        limited(tmp_path, w, tokens_per_minute=1000)
        for stream in (True, False) * 5:
            for turn in (urls, urls[::-1]):
                assert await ask(w, turn, 1, stream=stream, max_tokens=None) == {200: 1}
        assert await ask(w, urls, 1, max_tokens=700) == {429: 1}

    run(tmp_path, test)


def test_what_fails_or_is_refused_gives_its_tokens_back(tmp_path: Path) -> None:
    async def test(w: World, urls: list[str]) -> None:
        limited(tmp_path, w, tokens_per_minute=150)
        for _ in range(5):
            assert await ask(w, urls, 1, max_tokens=100) == {503: 1}
        w.home.faults.clear()
        for _ in range(3):
            assert await ask(w, urls, 1, max_tokens=100, model="other") == {404: 1}
        assert await ask(w, urls, 1, max_tokens=100) == {200: 1}

    run(tmp_path, test, home="status")


def test_a_client_that_leaves_gives_back_what_it_had_not_used(tmp_path: Path) -> None:
    async def test(w: World, urls: list[str]) -> None:
        limited(tmp_path, w, tokens_per_minute=200)
        leaving = asyncio.create_task(ask(w, urls, 1, max_tokens=100, stream=True))
        while not w.home.received:
            await asyncio.sleep(0.01)
        assert await ask(w, urls, 1, max_tokens=120) == {429: 1}
        leaving.cancel()
        while not w.home.cancelled:
            await asyncio.sleep(0.01)
        w.home.faults.clear()
        async with asyncio.timeout(10):
            while await ask(w, urls, 1, max_tokens=120) != {200: 1}:
                await asyncio.sleep(0.01)

    run(tmp_path, test, home="stall")


def test_an_attempt_that_failed_counts_what_it_used_besides_the_one_that_answered(
    tmp_path: Path,
) -> None:
    async def test(w: World, urls: list[str]) -> None:
        limited(tmp_path, w, "open", tokens_per_minute=1000)
        async with w.post("open", stream=True, max_tokens=50) as answer:
            await answer.read()
        async with w.session.get(
            f"{urls[0]}/v1/models", headers={"x-api-key": w.keys["open"]}
        ) as answer:
            left = int(answer.headers["x-ratelimit-remaining-tokens"])
        # The prompt by its length, and the two that came before the end.
        assert 10 < 1000 - left <= 30

    run(tmp_path, test, home="cut:2")
