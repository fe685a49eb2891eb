"""What becomes of a request that no replica can take now: a smaller variant, a place in the queue,
refusal."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.gateway import jwks
from orchestrator.gateway.sensitivity import Labels, Sensitivity
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.signals.report import GatewayReport
from orchestrator.simulate.engine import SimulatedEngine
from orchestrator.simulate.faults import Fault
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
from tests.tokens import ISSUER, SigningKey, key_set

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


HOME, AWAY = "a-home/m-1", "b-away/m-1"


def test_a_refusal_for_want_of_a_replica_says_when_one_may_be_there(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 10") as s:
            answer = await s.answer()
            assert (answer.status, answer.code, answer.retry_after_s) == (503, "no_capacity", 1)

    asyncio.run(inside())


def test_the_engine_is_kept_busy_and_what_comes_then_waits_in_the_gateway(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=30)
            waiting = s.starts(3)
            await s.queued(3)
            assert len(s.home.received) == 2
            assert {a.status for a in await asyncio.gather(*busy, *waiting)} == {200}
            await s.queued(0)

    asyncio.run(inside())


def test_the_more_important_goes_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(
            tmp_path, "priority: 90", HOME, of_open="priority: 10", one_slot=True
        ) as s:
            busy = await s.full(tokens=30)
            low = s.starts(4, "open", content="low")
            await s.queued(4)
            high = s.starts(2, "closed", content="high")
            await s.queued(6)
            await asyncio.gather(*busy, *low, *high)
            assert asked(s.home)[2:] == ["high"] * 2 + ["low"] * 4

    asyncio.run(inside())


def asked(engine: SimulatedEngine) -> list[str]:
    return [request.body["messages"][0]["content"] for request in engine.received]


def test_of_equals_the_one_with_fewer_tokens_goes_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=60, behind="open")
            long = s.starts(12, "open", tokens=20, content="long")
            await s.queued(12)
            short = s.starts(24, "closed", tokens=2, content="short")
            await s.queued(36)
            await asyncio.gather(*busy, *long, *short)
            last_short = max(n for n, content in enumerate(asked(s.home)) if content == "short")
            # 24 of 8 tokens are worth 4 to 5 of 44; in the order of arrival all 12 were before.
            assert 3 <= asked(s.home)[: last_short + 1].count("long") <= 7

    asyncio.run(inside())


def test_with_a_full_queue_the_least_important_is_refused_the_newest_first(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(
            tmp_path,
            "priority: 90",
            HOME,
            of_open="priority: 10",
            gateway="max_queued_requests: 2",
            one_slot=True,
        ) as s:
            busy = await s.full(tokens=60)
            (first,) = s.starts(1, "open")
            await s.queued(1)
            (second,) = s.starts(1, "open")
            await s.queued(2)
            (high,) = s.starts(1, "closed")
            refused = await second
            assert (refused.status, refused.code) == (429, "queue_full")
            assert refused.retry_after_s >= 1
            assert (await s.answer("open")).code == "queue_full"
            answers = await asyncio.gather(*busy, first, high)
            assert {a.status for a in answers} == {200}

    asyncio.run(inside())


def test_what_would_miss_its_deadline_is_told_at_once_and_when_to_come_again(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        rules = "priority: 50"
        async with stack(tmp_path, rules, HOME, one_slot=True, slot_s=15) as s:
            busy = await s.full(tokens=50)
            answer = await s.answer()
            assert not any(task.done() for task in busy)
            # One is behind the one in the slot, and this one: 30 s, of which it has 20.
            assert (answer.status, answer.code) == (429, "deadline_unreachable")
            assert answer.retry_after_s == 10
            await asyncio.gather(*busy)
            assert (await s.answer()).status == 200

    asyncio.run(inside())


def test_at_its_deadline_a_request_that_still_waits_is_refused(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "priority: 50\n    when_infeasible: {queue_s: 30}"
        async with stack(tmp_path, rules, HOME, one_slot=True) as s:
            impatient = (
                (tmp_path / "all.yaml")
                .read_text()
                .replace("slo: {ttft_p95_s: 1}", "slo: {ttft_p95_s: 1, deadline_s: 0.3}")
            )
            (tmp_path / "all.yaml").write_text(impatient)
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes(HOME)
            await made_known(s)
            busy = await s.full(tokens=150)
            answer = await s.answer()
            assert (answer.status, answer.code) == (429, "saturated")
            assert answer.retry_after_s >= 1
            assert not any(task.done() for task in busy)
            async with s.session.get(f"{s.url}/metrics") as shown:
                waited = samples(await shown.text(), "orchestrator_queue_wait_seconds_count")
            assert ({"workload": "closed"}, 1.0) in waited, "also of one that was refused"
            assert await s.queue_length() == 0
            for task in busy:
                task.cancel()

    asyncio.run(inside())


def test_what_waits_goes_to_a_pool_that_comes_up(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=150)
            may_leave, must_stay = s.starts(5, "open"), s.starts(2, "closed")
            await s.queued(7)
            s.fleet.becomes(HOME, AWAY)
            answers = await asyncio.gather(*may_leave)
            assert {(a.status, a.pool) for a in answers} == {(200, "b-away")}
            assert not any(task.done() for task in (*busy, *must_stay))
            for answer in await asyncio.gather(*must_stay):
                assert (answer.status, answer.pool) == (200, "a-home")

    asyncio.run(inside())


def test_the_controller_learns_who_waits_and_where_they_would_run(tmp_path: Path) -> None:
    async def inside() -> None:
        rules = "when_infeasible: {queue_s: 20}"
        async with stack(tmp_path, rules) as s:
            waiting = s.starts(3)
            await s.until(lambda: any(q for q in s.fleet.reports[-1].queues))
            await s.queued(3)
            seen = len(s.fleet.reports)
            await s.until(lambda: len(s.fleet.reports) > seen + 1)
            (queue,) = s.fleet.reports[-1].queues
            assert queue.endpoints == ["a-home/m-0", HOME]
            assert len(queue.ages_s) == 3
            s.fleet.becomes(HOME)
            assert {a.status for a in await asyncio.gather(*waiting)} == {200}
            await s.until(lambda: not s.fleet.reports[-1].queues)

    asyncio.run(inside())


def test_a_client_that_goes_away_leaves_the_queue_and_reaches_no_engine(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, one_slot=True) as s:
            busy = await s.full(tokens=40)
            (gone,) = s.starts(1, content="gone")
            await s.queued(1)
            (stays,) = s.starts(1, content="stays")
            await s.queued(2)
            gone.cancel()
            await s.queued(1)
            await asyncio.gather(*busy)
            assert (await stays).status == 200
            assert asked(s.home)[2:] == ["stays"]

    asyncio.run(inside())


def test_a_gateway_that_stops_waits_no_longer_than_those_who_wait_in_it(tmp_path: Path) -> None:
    async def inside() -> None:
        async with asyncio.timeout(30):
            async with stack(tmp_path, "when_infeasible: {queue_s: 1}") as s:
                waiting = s.starts(3)
                await s.queued(3)
            assert {(a.status, a.code) for a in await asyncio.gather(*waiting)} == {
                (503, "no_capacity")
            }

    asyncio.run(inside())


def test_one_after_a_failed_attempt_waits_for_another_endpoint_that_is_full(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 50", HOME, AWAY, one_slot=True) as s:
            s.away.faults.append(Fault.parse("status"))
            busy = await s.full(tokens=30)
            answer = await s.answer("open")
            assert (answer.status, answer.pool) == (200, "a-home")
            assert {a.status for a in await asyncio.gather(*busy)} == {200}

    asyncio.run(inside())


def test_an_answer_that_broke_off_goes_on_before_others_begin(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "priority: 90", HOME, AWAY, one_slot=True) as s:
            s.home.faults.append(Fault.parse("cut:80"))
            broken = asyncio.create_task(s.stream("open", tokens=100))
            await s.until(lambda: len(s.home.received) == 1)
            s.home.faults.clear()
            busy = s.starts(1, "closed", tokens=200)
            await s.until(lambda: len(s.home.received) == 2)
            busy += s.starts(2, "open", tokens=1500, content="keeps it busy")
            await s.until(lambda: len(s.away.received) == 2)
            others = s.starts(3, "open", content="other")
            await s.queued(3)
            assert (await broken).endswith(" t99")
            assert {a.status for a in await asyncio.gather(*busy, *others)} == {200}
            assert s.away.received[2].body["messages"][-1]["role"] == "assistant"

    asyncio.run(inside())


def becomes_restricted(tmp_path: Path, s: Stack) -> None:
    """Rules come in force by which the content of the waiting requests must stay at home."""
    file = tmp_path / "all.yaml"
    text_before = file.read_text()
    marked = "allowed_zones: [onprem, cloud]\n    markers: [patient]\n"
    file.write_text(text_before.replace("allowed_zones: [onprem, cloud]\n", marked))
    assert file.read_text() != text_before
    apply(tmp_path)
    applied: Any = PolicyStore(tmp_path).current()
    s.fleet.config_version = applied.version


@pytest.mark.parametrize("requests", [1, 20])
def test_requests_that_wait_are_read_again_by_new_rules_and_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    loops, readings = set[int](), []
    read = Sensitivity.read

    def noted(*arguments: Any) -> Labels:
        readings.append(threading.get_ident())
        return read(*arguments)

    async def inside() -> None:
        loops.add(threading.get_ident())
        async with stack(tmp_path, "priority: 10", of_open="when_infeasible: {queue_s: 20}") as s:
            monkeypatch.setattr(Sensitivity, "read", noted)
            waiting = s.starts(requests, "open", content="About a patient.")
            await s.queued(requests)
            readings.clear()
            becomes_restricted(tmp_path, s)
            # The cloud alone has a replica, where they might have gone by the rules of before.
            s.fleet.becomes("b-away/m-1")
            await made_known(s)
            await s.until(lambda: bool(readings))
            s.fleet.becomes("a-home/m-1", "b-away/m-1")
            answers = await asyncio.gather(*waiting)
            assert {(a.status, a.pool) for a in answers} == {(200, "a-home")}
            assert not s.away.received

    asyncio.run(inside())
    assert len(readings) == requests
    assert not loops & set(readings)


def test_rules_that_change_while_a_waiting_request_is_read_again_are_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read slowly by rules that let it go to the cloud, while those come that do not."""
    read, reading, go_on = Sensitivity.read, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Labels:
        labels = read(*arguments)
        reading.set()
        go_on.wait(20)
        return labels

    async def inside() -> None:
        async with stack(tmp_path, "priority: 10", of_open="when_infeasible: {queue_s: 20}") as s:
            (waiting,) = s.starts(1, "open", content="About a patient.")
            await s.queued(1)
            monkeypatch.setattr(Sensitivity, "read", slow)
            file = tmp_path / "all.yaml"
            file.write_text(file.read_text().replace("ttft_p95_s: 1", "ttft_p95_s: 2"))
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes("b-away/m-1")
            await s.until(reading.is_set)
            becomes_restricted(tmp_path, s)
            s.fleet.becomes("b-away/m-1")
            await made_known(s)
            go_on.set()
            await asyncio.sleep(0.3)
            assert not waiting.done()
            s.fleet.becomes("a-home/m-1", "b-away/m-1")
            answer = await waiting
            assert (answer.status, answer.pool) == (200, "a-home")
            assert not s.away.received

    asyncio.run(inside())


def test_a_waiting_request_for_a_model_that_its_workload_loses_is_refused(tmp_path: Path) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            (waiting,) = s.starts(1)
            await s.queued(1)
            file = tmp_path / "all.yaml"
            rest = file.read_text().replace("- name: m\n", "- name: other\n")
            file.write_text(rest.replace("models: [m]", "models: [other]"))
            apply(tmp_path)
            applied: Any = PolicyStore(tmp_path).current()
            s.fleet.config_version = applied.version
            s.fleet.becomes()
            answer = await waiting
            assert (answer.status, answer.code) == (404, "model_not_found")

    asyncio.run(inside())


@pytest.mark.parametrize("how", ["revoked", "expired", "another workload", "another scope"])
def test_a_key_that_ends_while_its_request_waits_sends_nothing(tmp_path: Path, how: str) -> None:
    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}") as s:
            key, s.keys["closed"] = keys.create(tmp_path, "closed")
            (waiting,) = s.starts(1)
            await s.queued(1)
            if how == "revoked":
                keys.revoke(tmp_path, key.id)
            elif how == "expired":
                keys.rotate(tmp_path, key.id, timedelta())
            else:
                old, new = {
                    "another workload": ({"workload": "closed"}, {"workload": "open"}),
                    "another scope": ({}, {"scope": {"models": ["other"]}}),
                }[how]
                document = yaml.safe_load((tmp_path / keys.FILE).read_text())
                (entry,) = [e for e in document["keys"] if e["id"] == key.id]
                assert old.items() <= entry.items()
                entry |= new
                (tmp_path / keys.FILE).write_text(yaml.safe_dump(document))
            # Who asks with a key that holds waits behind it, and goes.
            _, s.keys["closed"] = keys.create(tmp_path, "closed")
            (other,) = s.starts(1, content="Another.")
            await s.queued(2)
            s.fleet.becomes("a-home/m-1")
            answer = await waiting
            expected = (
                (403, "outside_scope") if how == "another scope" else (401, "invalid_api_key")
            )
            assert (answer.status, answer.code) == expected
            assert (await other).status == 200
            (received,) = s.home.received
            assert received.body["messages"][0]["content"] == "Another."

    asyncio.run(inside())


@pytest.mark.parametrize("how", ["expired", "key taken back", "issuer removed"])
def test_a_token_that_ends_while_its_request_waits_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0)
    signing, published = SigningKey("k1"), tmp_path / "jwks.json"
    published.write_bytes(key_set(signing))
    rule = {"claims": {"sub": "somebody"}, "workload": "closed"}
    jwt = {
        "issuer": ISSUER,
        "audience": "inference",
        "jwks_file": str(published),
        "refresh_s": 10,
        "leeway_s": 0,
        "workloads": [rule],
    }
    written = f"jwt: {json.dumps([jwt])}\n  max_queued_requests: 1000"

    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}", gateway=written) as s:
            lives_s = 2 if how == "expired" else 60
            ends_s = int(time.time()) + lives_s
            s.keys["closed"] = signing.token(sub="somebody", exp=ends_s)
            (waiting,) = s.starts(1)
            await s.queued(1)
            if how == "expired":
                await asyncio.sleep(ends_s + 0.1 - time.time())
            elif how == "key taken back":
                published.write_bytes(key_set(SigningKey("k2")))
                # Whoever names a key that is not known makes the gateway look again.
                s.keys["closed"] = SigningKey("k2").token(sub="somebody")
                assert (await s.answer()).status == 401
            else:
                file = tmp_path / "all.yaml"
                file.write_text(file.read_text().replace(written, "max_queued_requests: 1000"))
                apply(tmp_path)
                applied: Any = PolicyStore(tmp_path).current()
                s.fleet.config_version = applied.version
            s.fleet.becomes("a-home/m-1")
            answer = await waiting
            assert (answer.status, answer.code) == (401, "invalid_api_key")
            assert not s.home.received

    asyncio.run(inside())


def test_a_token_that_holds_is_taken_after_the_wait_also_under_new_rules(tmp_path: Path) -> None:
    signing, published = SigningKey("k1"), tmp_path / "jwks.json"
    published.write_bytes(key_set(signing))
    rule = {"claims": {"sub": "somebody"}, "workload": "closed"}
    jwt = {
        "issuer": ISSUER,
        "audience": "inference",
        "jwks_file": str(published),
        "workloads": [rule],
    }
    written = f"jwt: {json.dumps([jwt])}\n  max_queued_requests: 1000"

    async def inside() -> None:
        async with stack(tmp_path, "when_infeasible: {queue_s: 20}", gateway=written) as s:
            s.keys["closed"] = signing.token(sub="somebody")
            (waiting,) = s.starts(1)
            await s.queued(1)
            becomes_restricted(tmp_path, s)
            s.fleet.becomes("a-home/m-1")
            assert (await waiting).status == 200

    asyncio.run(inside())
