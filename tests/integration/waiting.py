"""A gateway in which requests wait, and the word of a controller on what could take them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.signals.report import GatewayReport
from orchestrator.simulate.engine import SimulatedEngine
from tests.integration.engines import (
    CONFIG,
    FAST,
    apply,
    samples,
    scripted,
    serve,
    serve_engine,
    text,
)
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
    slot_s: float | None = None
    """As measured at all of them."""
    version: int = 1
    reports: list[GatewayReport] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.reports.append(GatewayReport.model_validate_json(await request.read()))
        snapshot = Snapshot(
            version=self.version,
            config_version=self.config_version,
            created_at_s=0,
            endpoints={e: EndpointState(ready_replicas=1, slot_s=self.slot_s) for e in self.ready},
        )
        return web.Response(text=snapshot.model_dump_json())

    def becomes(self, *ready: str) -> None:
        self.ready, self.version = set(ready), self.version + 1


@dataclass
class Answer:
    status: int
    variant: str = ""
    pool: str = ""
    code: str = ""
    retry_after_s: int = 0


@dataclass
class Stack:
    fleet: Fleet
    url: str
    session: aiohttp.ClientSession
    keys: dict[str, str]
    home: SimulatedEngine
    away: SimulatedEngine

    async def ask(
        self, workload: str = "closed", tokens: int = 1, content: str = "Hello."
    ) -> tuple[int, str]:
        """The status, and the variant that answered."""
        answer = await self.answer(workload, tokens, content)
        return answer.status, answer.variant

    async def answer(
        self, workload: str = "closed", tokens: int = 1, content: str = "Hello."
    ) -> Answer:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
        }
        headers = {"authorization": f"Bearer {self.keys[workload]}"}
        url = f"{self.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as answer:
            error = (await answer.json()).get("error", {})
            return Answer(
                answer.status,
                answer.headers.get("x-orchestrator-variant", ""),
                answer.headers.get("x-orchestrator-pool", ""),
                error.get("code", ""),
                int(answer.headers.get("retry-after", 0)),
            )

    async def stream(self, workload: str, tokens: int) -> str:
        """What a stream said."""
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello."}],
            "max_tokens": tokens,
            "stream": True,
        }
        headers = {"authorization": f"Bearer {self.keys[workload]}"}
        url = f"{self.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as answer:
            return text(await answer.text())

    def starts(
        self, count: int, workload: str = "closed", tokens: int = 1, content: str = "Hello."
    ) -> list[asyncio.Task[Answer]]:
        return [asyncio.create_task(self.answer(workload, tokens, content)) for _ in range(count)]

    async def full(self, tokens: int, behind: str = "closed") -> list[asyncio.Task[Answer]]:
        """The request that home's only slot has, for so many tokens, and the one behind it."""
        both = self.starts(1, "closed", tokens, "keeps it busy")
        both += self.starts(1, behind, tokens, "keeps it busy")
        await self.until(lambda: len(self.home.received) == 2)
        return both

    async def queued(self, count: int) -> None:
        """Until so many wait in the gateway."""
        async with asyncio.timeout(10):
            while await self.queue_length() != count:
                await asyncio.sleep(0.01)

    async def queue_length(self) -> float:
        async with self.session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        gauge = "orchestrator_queue_length{"
        return sum(float(line.split()[-1]) for line in lines if line.startswith(gauge))

    @staticmethod
    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def stack(
    tmp_path: Path,
    rules: str,
    *ready: str,
    of_open: str = "priority: 50",
    gateway: str = "max_queued_requests: 1000",
    one_slot: bool = False,
    slot_s: float | None = None,
) -> AsyncIterator[Stack]:
    """`closed`, which may run at home alone, under more rules, and `open`, which may run anywhere;
    these endpoints have a replica. `one_slot`: of one sequence."""
    fleet = Fleet("", set(ready), slot_s)
    spec = replace(FAST, itl_s=0.01, max_num_seqs=1) if one_slot else FAST
    home, away = SimulatedEngine(spec, remember=True), SimulatedEngine(FAST, remember=True)
    async with AsyncExitStack() as running:
        controller = await running.enter_async_context(serve(scripted(fleet.answer)))
        written = CONFIG.format(
            home=await running.enter_async_context(serve_engine(home)),
            away=await running.enter_async_context(serve_engine(away)),
            controller=controller,
            total_s=60,
            max_open=99,
        )
        for old, new in (
            ("\nworkloads:", f"\n{SMALLER}"),
            ("    allowed_zones: [onprem]\n", f"    allowed_zones: [onprem]\n    {rules}\n"),
            (
                "    allowed_zones: [onprem, cloud]\n",
                f"    allowed_zones: [onprem, cloud]\n    {of_open}\n",
            ),
            ("  cluster: serve\n  max_body", f"  cluster: serve\n  {gateway}\n  max_body"),
            ("first_token_s: 1,", "first_token_s: 20,"),
            ("between_tokens_s: 1,", "between_tokens_s: 20,"),
        ):
            assert old in written
            written = written.replace(old, new, 1)
        written = written.replace("kind: openai,", "kind: openai, engine: vllm,")
        if one_slot:
            written = written.replace("max_num_seqs: 4", "max_num_seqs: 1", 1)
        (tmp_path / "all.yaml").write_text(written)
        plain = {name: keys.create(tmp_path, name)[1] for name in ("open", "closed")}
        apply(tmp_path)
        applied: Any = PolicyStore(tmp_path).current()
        fleet.config_version = applied.version
        session = await running.enter_async_context(aiohttp.ClientSession())
        url = await running.enter_async_context(gateway_on(tmp_path))
        made = Stack(fleet, url, session, plain, home, away)
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
