"""A second attempt for a short request whose first one takes its time, over real HTTP."""

import asyncio
from functools import partial
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from tests.integration import engines
from tests.integration.engines import World, billed, text

ANSWER = " t0 t1 t2"
HEDGE = "hedge: {after_s: 0.1, max_tokens: 8}"


run = partial(engines.run, more=HEDGE, total_s=10)


def outcomes(tmp_path: Path) -> set[tuple[str, str]]:
    """By pool."""
    return set(billed(tmp_path, "pool, outcome"))


@pytest.mark.parametrize("stream", [True, False])
def test_the_second_attempt_answers_where_the_first_hangs_and_both_are_accounted(
    tmp_path: Path, stream: bool
) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=stream) as answer:
            assert answer.status == 200
            assert answer.headers["x-orchestrator-pool"] == "b-away"
            body = await answer.text()
            assert (text(body) if stream else ANSWER in body and ANSWER) == ANSWER
        while not w.home.cancelled:
            await asyncio.sleep(0.01)

    run(tmp_path, test, home="hang")
    assert outcomes(tmp_path) == {("a-home", "cancelled"), ("b-away", "complete")}


@pytest.mark.parametrize("stream", [True, False])
def test_a_first_attempt_that_answers_soon_is_the_only_one(tmp_path: Path, stream: bool) -> None:
    async def test(w: World) -> None:
        async with w.post(stream=stream) as answer:
            assert answer.headers["x-orchestrator-pool"] == "a-home"
            await answer.read()
        assert not w.away.received

    run(tmp_path, test)


def test_a_first_attempt_that_still_answers_first_is_taken_and_the_second_is_cancelled(
    tmp_path: Path,
) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.headers["x-orchestrator-pool"] == "a-home"
        while not w.away.cancelled:
            await asyncio.sleep(0.01)
        assert "orchestrator_errors_total{" not in await w.metrics()

    run(tmp_path, test, home=slow, away="hang")
    assert outcomes(tmp_path) == {("a-home", "complete"), ("b-away", "cancelled")}
    line = orjson.loads((tmp_path / "logs" / "access.jsonl").read_bytes().splitlines()[0])
    assert (line["pool"], line["outcome"], line["code"]) == ("a-home", "complete", None)


def test_the_first_may_fail_while_the_second_is_under_way(tmp_path: Path) -> None:
    async def fails(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=500)

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.headers["x-orchestrator-pool"] == "b-away"

    run(tmp_path, test, home=fails, away=slow)


def test_when_both_fail_the_request_is_refused(tmp_path: Path) -> None:
    async def fails(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=500)

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 503
            assert "retry-after" in answer.headers

    run(tmp_path, test, home=fails, away=fails)


def test_what_the_client_must_change_is_told_without_waiting_for_the_other(tmp_path: Path) -> None:
    async def refuses(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.json_response({"error": {"message": "too long"}}, status=400)

    async def test(w: World) -> None:
        async with w.post() as answer:
            assert answer.status == 400

    run(tmp_path, test, home=refuses, away="hang")


@pytest.mark.parametrize(("tokens", "more"), [(9, HEDGE), (3, "")])
def test_long_requests_and_those_of_other_workloads_have_one_attempt(
    tmp_path: Path, tokens: int, more: str
) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        async with w.post(max_tokens=tokens) as answer:
            assert answer.headers["x-orchestrator-pool"] == "a-home"
        assert not w.away.received

    run(tmp_path, test, home=slow, more=more)


def test_restricted_data_is_hedged_nowhere_that_it_may_not_be(tmp_path: Path) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"choices": [], "usage": None})

    async def test(w: World) -> None:
        card = [{"role": "user", "content": "Charge 4111-1111-1111-1111, please."}]
        async with w.post(messages=card) as answer:
            assert answer.headers["x-orchestrator-pool"] == "a-home"
        assert not w.away.received

    run(tmp_path, test, home=slow)


def test_a_client_that_leaves_cancels_both(tmp_path: Path) -> None:
    async def test(w: World) -> None:
        async def ask() -> None:
            async with w.post() as answer:
                await answer.read()

        asking = asyncio.create_task(ask())
        while not (w.home.received and w.away.received):
            await asyncio.sleep(0.01)
        asking.cancel()
        while not (w.home.cancelled and w.away.cancelled):
            await asyncio.sleep(0.01)

    run(tmp_path, test, home="hang", away="hang")
    assert outcomes(tmp_path) == {("a-home", "cancelled"), ("b-away", "cancelled")}
