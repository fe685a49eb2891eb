"""What becomes of a request that no replica can take now: a smaller variant, patience, refusal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.simulate.engine import SimulatedEngine
from tests.integration.engines import CONFIG, FAST, apply, samples, scripted, serve, serve_engine
from tests.integration.engines import serve_gateway as gateway_on

SMALLER = (
    "      - {name: m-0, weights: org/m, quality: 0.5, pools: [a-home], max_model_len: 4096, "
    "max_num_seqs: 4}\nworkloads:"
)


@dataclass
class Fleet:
    """Which endpoints have a replica, by a controller's word."""

    config_version: str
    ready: set[str]
    version: int = 1

    async def answer(self, _: web.Request) -> web.Response:
        snapshot = Snapshot(
            version=self.version,
            config_version=self.config_version,
            created_at_s=0,
            endpoints={e: EndpointState(ready_replicas=1) for e in self.ready},
        )
        return web.Response(text=snapshot.model_dump_json())

    def becomes(self, *ready: str) -> None:
        self.ready, self.version = set(ready), self.version + 1


@dataclass
class Stack:
    fleet: Fleet
    url: str
    session: aiohttp.ClientSession
    key: str

    async def ask(self) -> tuple[int, str]:
        """The status, and the variant that answered."""
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"{self.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status, answer.headers.get("x-orchestrator-variant", "")


@asynccontextmanager
async def stack(tmp_path: Path, rules: str, *ready: str) -> AsyncIterator[Stack]:
    """`closed`, which may run at home alone, under more rules; these endpoints have a replica."""
    fleet = Fleet("", set(ready))
    async with AsyncExitStack() as running:
        controller = await running.enter_async_context(serve(scripted(fleet.answer)))
        home = await running.enter_async_context(serve_engine(SimulatedEngine(FAST)))
        text = CONFIG.format(
            home=home, away="http://127.0.0.1:9", controller=controller, total_s=60, max_open=9
        )
        text = text.replace("\nworkloads:", f"\n{SMALLER}", 1)
        closed = "    allowed_zones: [onprem]\n"
        (tmp_path / "all.yaml").write_text(text.replace(closed, f"{closed}    {rules}\n", 1))
        _, key = keys.create(tmp_path, "closed")
        apply(tmp_path)
        applied: Any = PolicyStore(tmp_path).current()
        fleet.config_version = applied.version
        url = await running.enter_async_context(gateway_on(tmp_path))
        session = await running.enter_async_context(aiohttp.ClientSession())
        made = Stack(fleet, url, session, key)
        await made_known(made)
        yield made


async def made_known(s: Stack) -> None:
    """Until the gateway decides on what the controller says."""
    async with asyncio.timeout(10):
        while True:
            async with s.session.get(f"{s.url}/metrics") as answer:
                shown = samples(await answer.text(), "orchestrator_snapshot_version")
                if shown == [({}, s.fleet.version)]:
                    return
            await asyncio.sleep(0.02)


def test_without_patience_it_is_refused_at_once(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 10") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())


def test_a_patient_request_waits_for_a_replica(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            asked = asyncio.create_task(s.ask())
            await asyncio.sleep(0.5)
            assert not asked.done()
            s.fleet.becomes("a-home/m-1")
            assert await asked == (200, "m-1")

    asyncio.run(inside())


def test_patience_ends(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 0.3}") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())


def test_a_smaller_variant_answers_only_where_nothing_better_can(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "min_quality: 0.9\n    when_infeasible: {min_quality: 0.4}"
        async with stack(tmp_path, rules, "a-home/m-0") as s:
            assert await s.ask() == (200, "m-0")
            s.fleet.becomes("a-home/m-0", "a-home/m-1")
            await made_known(s)
            assert await s.ask() == (200, "m-1")

    asyncio.run(inside())


def test_a_smaller_variant_that_is_not_allowed_never_answers(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "min_quality: 0.9", "a-home/m-0") as s:
            assert await s.ask() == (503, "")

    asyncio.run(inside())
