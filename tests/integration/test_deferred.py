"""When the lines of batches run, where, and that each gets one answer, whatever dies meanwhile."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from openai.types import Batch

from orchestrator.config import keys
from orchestrator.simulate.engine import SimulatedEngine
from tests.integration import engines
from tests.integration.engines import (
    CONFIG,
    FAST,
    World,
    apply,
    scripted,
    serve,
    serve_gateway,
    world,
)
from tests.integration.test_batches import OVER, client, content, create, jsonl, line, wait

IBAN = "Pay to DE89 3704 0044 0532 0130 00."
SLOTS = 4
"""Of each of the two endpoints."""


class Engine:
    """Answers at once, but for those that ask it to hold on."""

    def __init__(self, refusals: int = 0, takes_s: float = 0) -> None:
        self.go_on = asyncio.Event()
        self.said: list[str] = []
        self.most = self.open = 0
        self._refusals, self._takes_s = refusals, takes_s

    async def answer(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return web.Response()
        said = (await request.json())["messages"][0]["content"]
        self.said.append(said)
        if self._refusals:
            self._refusals -= 1
            return web.Response(status=503)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if said == "hold on":
                await self.go_on.wait()
            await asyncio.sleep(self._takes_s)
        finally:
            self.open -= 1
        message = {"role": "assistant", "content": said}
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
            }
        )


def run(
    tmp_path: Path,
    test: Callable[[World, Engine, Engine], Awaitable[None]],
    home: Engine | None = None,
    away: Engine | None = None,
    home_is_dead: bool = False,
) -> None:
    async def inside() -> None:
        engines = home or Engine(), away or Engine()
        answers = [engine.answer for engine in engines]
        async with world(tmp_path, *answers, home_is_dead=home_is_dead) as w:
            try:
                await test(w, *engines)
            finally:
                for engine in engines:
                    engine.go_on.set()

    asyncio.run(inside())


async def until(true: Callable[[], bool], s: float = 20) -> None:
    async with asyncio.timeout(s):
        while not true():
            await asyncio.sleep(0.02)


async def made(w: World, *lines: dict[str, Any], window: str = "24h") -> str:
    batch = await asyncio.to_thread(create, client(w), jsonl(*lines), window)
    return batch.id


async def over(w: World, batch_id: str) -> Batch:
    return await asyncio.to_thread(wait, client(w), batch_id, OVER)


async def results(w: World, file_id: str | None) -> dict[str, Any]:
    return await asyncio.to_thread(content, client(w), file_id)


@contextlib.asynccontextmanager
async def interactive(w: World, count: int, workload: str = "open") -> Any:
    """So many requests that hold their slots."""
    hold = [{"role": "user", "content": "hold on"}]

    async def ask() -> int:
        async with w.post(workload, messages=hold) as answer:
            await answer.read()
            return int(answer.status)

    asked = [asyncio.create_task(ask()) for _ in range(count)]
    try:
        yield
        assert set(await asyncio.gather(*asked)) == {200}
    finally:
        for task in asked:
            task.cancel()


def test_lines_wait_while_the_slots_are_taken_and_run_when_they_are_idle(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        async with interactive(w, 2 * SLOTS):
            await until(lambda: home.open + away.open == 2 * SLOTS)
            batch_id = await made(w, *(line(f"l{n}") for n in range(5)))
            await asyncio.sleep(2)
            assert "hi" not in home.said + away.said
            async with w.post() as answer:
                assert answer.status == 200
            home.go_on.set()
            away.go_on.set()
        batch = await over(w, batch_id)
        assert set(await results(w, batch.output_file_id)) == {f"l{n}" for n in range(5)}

    run(tmp_path, test)


def test_lines_leave_a_share_of_the_slots_free(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        batch_id = await made(w, *(line(f"l{n}", "hold on") for n in range(12)))
        await until(lambda: home.open + away.open == 6)
        await asyncio.sleep(1)
        assert (home.open, away.open) == (3, 3)
        home.go_on.set()
        away.go_on.set()
        assert (await over(w, batch_id)).status == "completed"
        assert (home.most, away.most) == (3, 3)

    run(tmp_path, test)


def test_lines_do_not_wait_for_idle_slots_when_their_deadline_is_near(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        async with interactive(w, 2 * SLOTS):
            await until(lambda: home.open + away.open == 2 * SLOTS)
            at_leisure = await made(w, line("late", "at leisure"))
            # Two lines' time is kept at the end, which is 20 s before any was measured.
            batch = await over(w, await made(w, line("a"), line("b"), window="22s"))
            assert batch.status == "completed"
            assert home.open + away.open == 2 * SLOTS
            assert "at leisure" not in home.said + away.said
            home.go_on.set()
            away.go_on.set()
        await over(w, at_leisure)

    run(tmp_path, test)


def test_what_is_not_answered_in_time_is_told_so(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        batch_id = await made(w, line("a"), line("b", "hold on"), window="3s")
        batch = await over(w, batch_id)
        assert batch.status == "expired"
        assert batch.expired_at
        assert set(await results(w, batch.output_file_id)) == {"a"}
        errors = await results(w, batch.error_file_id)
        assert {k: x["error"]["code"] for k, x in errors.items()} == {"b": "batch_expired"}
        await until(lambda: home.open + away.open == 0)

    run(tmp_path, test)


def test_a_line_is_tried_again_until_it_is_answered(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        batch = await over(w, await made(w, line("a")))
        assert batch.status == "completed"
        assert set(await results(w, batch.output_file_id)) == {"a"}
        assert len(home.said + away.said) > 1

    run(tmp_path, test, Engine(refusals=2), Engine(refusals=2))


def test_a_line_goes_only_where_its_own_content_may(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        async with interactive(w, SLOTS, "closed"):
            await until(lambda: home.open == SLOTS)
            batch_id = await made(w, line("open", "What is a mountain?"), line("not", IBAN))
            await until(lambda: "What is a mountain?" in away.said)
            await asyncio.sleep(2)
            assert IBAN not in home.said + away.said
            home.go_on.set()
        batch = await over(w, batch_id)
        assert set(await results(w, batch.output_file_id)) == {"open", "not"}
        assert IBAN in home.said
        assert IBAN not in away.said

    run(tmp_path, test)


def test_a_line_that_may_go_nowhere_else_is_not_sent_there_to_keep_its_deadline(
    tmp_path: Path,
) -> None:
    async def test(w: World, _: Engine, away: Engine) -> None:
        batch = await over(w, await made(w, line("not", IBAN), line("open"), window="4s"))
        assert batch.status == "expired"
        assert set(await results(w, batch.output_file_id)) == {"open"}
        assert IBAN not in away.said

    run(tmp_path, test, home_is_dead=True)


def test_a_line_is_not_refused_for_good_while_the_state_of_the_fleet_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then it counts as restricted, and its workload has no place for that."""
    text = CONFIG.replace("allowed_zones: [onprem, cloud]", "allowed_zones: [cloud]", 1)
    monkeypatch.setattr(engines, "CONFIG", f"{text}policy: {{{{snapshot_stale_s: 0.1}}}}\n")

    async def test(w: World, home: Engine, away: Engine) -> None:
        batch = await over(w, await made(w, line("a"), window="3s"))
        assert batch.status == "expired"
        errors = await results(w, batch.error_file_id)
        assert errors["a"]["error"]["code"] == "batch_expired"
        assert not home.said + away.said

    run(tmp_path, test)


def test_a_class_given_to_the_upload_holds_for_every_line(tmp_path: Path) -> None:
    async def test(w: World, _: Engine, away: Engine) -> None:
        def ask() -> str:
            c = client(w)
            label = {"x-orchestrator-data-class": "restricted"}
            file = c.files.create(
                file=("f", jsonl(line("a"))), purpose="batch", extra_headers=label
            )
            window: Any = "3s"
            return c.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window=window,
            ).id

        batch = await over(w, await asyncio.to_thread(ask))
        assert batch.status == "expired"
        assert not away.said

    run(tmp_path, test, home_is_dead=True)


def test_a_batch_ends_with_the_key_that_made_it(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        batch_id = await made(w, line("a"), line("b", "hold on"))
        await until(lambda: "hold on" in home.said + away.said)
        await until(lambda: "hi" in home.said + away.said)
        await asyncio.sleep(0.5)
        keys.revoke(tmp_path, w.keys["open"].split("-")[1])
        w.keys["open"] = keys.create(tmp_path, "open")[1]
        await asyncio.sleep(1)
        batch = await over(w, batch_id)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [e.code for e in batch.errors.data] == ["api_key_revoked"]
        assert set(await results(w, batch.output_file_id)) == {"a"}
        errors = await results(w, batch.error_file_id)
        assert {k: x["error"]["code"] for k, x in errors.items()} == {"b": "api_key_revoked"}
        await until(lambda: home.open + away.open == 0)

    run(tmp_path, test)


def test_an_input_file_is_kept_while_a_batch_needs_it(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        batch_id = await made(w, line("b", "hold on"))
        c = client(w)
        file_id = (await asyncio.to_thread(c.batches.retrieve, batch_id)).input_file_id
        with pytest.raises(openai.ConflictError):
            await asyncio.to_thread(c.files.delete, file_id)
        home.go_on.set()
        away.go_on.set()
        await over(w, batch_id)
        assert (await asyncio.to_thread(c.files.delete, file_id)).deleted

    run(tmp_path, test)


def test_two_gateways_share_a_batch_and_its_slots(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        async with serve_gateway(tmp_path):
            count = 60
            batch = await over(w, await made(w, *(line(f"l{n}", f"{n}") for n in range(count))))
            assert batch.status == "completed"
            assert batch.request_counts is not None
            assert batch.request_counts.completed == count
        assert len(await results(w, batch.output_file_id)) == count
        assert sorted(home.said + away.said, key=int) == [str(n) for n in range(count)]
        assert max(home.most, away.most) <= 3

    run(tmp_path, test, Engine(takes_s=0.05), Engine(takes_s=0.05))


def test_a_gateway_that_stops_hands_its_lines_over(tmp_path: Path) -> None:
    async def test(w: World, home: Engine, away: Engine) -> None:
        async with serve_gateway(tmp_path) as url:
            other = replace(w, url=url)
            batch_id = await made(other, *(line(f"l{n}", "hold on") for n in range(6)))
            await until(lambda: home.open + away.open == 6)
        await until(lambda: len(home.said + away.said) > 6 and home.open + away.open == 6)
        home.go_on.set()
        away.go_on.set()
        batch = await over(w, batch_id)
        assert batch.status == "completed"
        assert set(await results(w, batch.output_file_id)) == {f"l{n}" for n in range(6)}

    run(tmp_path, test)
    deciding = {
        chain.parent.name
        for chain in (tmp_path / "audit").glob("*/*.jsonl")
        if '"request_id":"batch_' in chain.read_text()
    }
    assert len(deciding) == 2


def configure(directory: Path, home: str, away: str) -> None:
    text = CONFIG.format(
        home=home, away=away, controller="http://127.0.0.1:9", total_s=60, max_open=100
    )
    (directory / "all.yaml").write_text(text)


SERVE = """
import sys
from pathlib import Path
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.server import listen, server
server(Gateway(Path(sys.argv[1]))).run([listen(sys.argv[2])])
"""


def test_after_a_kill_every_line_still_gets_one_answer(tmp_path: Path, free_port: int) -> None:
    count, url = 40, f"http://127.0.0.1:{free_port}"

    async def inside() -> None:
        home, away = Engine(takes_s=0.3), Engine(takes_s=0.3)
        async with (
            serve(scripted(home.answer)) as home_url,
            serve(scripted(away.answer)) as away_url,
            aiohttp.ClientSession() as session,
        ):
            configure(tmp_path, home_url, away_url)
            key = keys.create(tmp_path, "open")[1]
            apply(tmp_path)
            w = World(url, SimulatedEngine(FAST), SimulatedEngine(FAST), session, {"open": key})
            async with gateway_process(w, tmp_path):
                batch_id = await made(w, *(line(f"l{n}", f"{n}") for n in range(count)))
                await until(lambda: len(set(home.said + away.said)) >= 5)
            async with gateway_process(w, tmp_path):
                await until(lambda: len(set(home.said + away.said)) >= 20, 60)
            async with gateway_process(w, tmp_path):
                batch = await over(w, batch_id)
                found = await results(w, batch.output_file_id)
        assert batch.status == "completed"
        assert batch.error_file_id is None
        assert set(found) == {f"l{n}" for n in range(count)}
        for custom_id, result in found.items():
            said = result["response"]["body"]["choices"][0]["message"]["content"]
            assert f"l{said}" == custom_id
        assert batch.request_counts is not None
        assert batch.request_counts.completed == count

    asyncio.run(inside())


@contextlib.asynccontextmanager
async def gateway_process(w: World, directory: Path) -> AsyncIterator[None]:
    """A gateway that is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(directory), w.url
    )
    try:
        async with asyncio.timeout(60):
            while not await alive(w):
                await asyncio.sleep(0.1)
        yield
    finally:
        process.kill()
        await process.wait()


async def alive(w: World) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with w.session.get(f"{w.url}/healthz") as answer:
            return answer.status == 200
    return False
