"""A place at an endpoint goes to one request, and comes back whatever becomes of its attempts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.classify import Classification, Classifier
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import ClassifierSpec, Hedge
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.request import parse
from orchestrator.gateway.rules import Rules
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.ledger.usage import UsageRecord
from orchestrator.policy.grant import Grant
from orchestrator.policy.view import View, room
from orchestrator.sessions.turns import Turn
from tests.worlds import small, snapshot

CALLER = Caller("aaaaaaaa", "records")
LABELS = Labels(
    DataClass.PUBLIC, DataClass.PUBLIC, Classification(DataClass.PUBLIC), conversation=None
)
HOME = "home-gpu/m-fp16"
REPLICAS = 2
ROOM = room(4 * REPLICAS)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":4,"stream":true}'
Answer = Callable[[Callable[[], None]], Awaitable[Any]]
"""An endpoint; it is told how to say that the request was written."""


@dataclass
class World:
    """A relay in front of one endpoint."""

    answer: Answer
    raised: bool = False
    records: list[UsageRecord] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    sent: bytes = b""

    def __post_init__(self) -> None:
        self.rules = Rules(small(), Classifier(ClassifierSpec(), {}), Path())
        exchange: Any = SimpleNamespace(
            rules=self.rules,
            catalogue=self.rules.catalogue,
            view=View(self.rules.catalogue, snapshot(home_ready=REPLICAS), "g"),
            snapshot_age_s=0.0,
        )
        self.telemetry = Telemetry()
        self.telemetry.inflight.follow(self.rules.catalogue)
        self.admission: Admission[Grant] = Admission(100)
        upstreams: Any = SimpleNamespace(send=self._send)
        sensitivity: Any = SimpleNamespace(
            raises=lambda *_: self.raised, remember=self._remember, remember_answer=self._remember
        )
        records: Any = SimpleNamespace(decided=lambda *_: True, used=self.records.append)
        self.relay = Relay(
            exchange, self.admission, upstreams, sensitivity, records, self.telemetry
        )
        self.placement = self.relay._placement

    @property
    def taken(self) -> int:
        return self.telemetry.inflight.by_endpoint[HOME]

    async def _send(self, *arguments: Any) -> Any:
        assert self.taken <= ROOM
        return await self.answer(arguments[-1])

    def _remember(self, _: Labels, answer: Sequence[Turn] = ()) -> Future[None]:
        self.remembered += [turn.text for turn in answer]
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def call(self) -> Call:
        async def send(message: Any) -> None:
            self.sent += message.get("body", b"")

        now_s = asyncio.get_running_loop().time()
        request = parse("/v1/chat/completions", BODY)
        return Call("id", CALLER, lambda: CALLER, self.rules, LABELS, "", request, send, now_s)


async def never(sent: Callable[[], None]) -> Any:
    sent()
    await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def leave(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()


@pytest.mark.parametrize("hedged", [True, False])
def test_as_many_requests_are_sent_as_there_are_places(
    monkeypatch: pytest.MonkeyPatch, hedged: bool
) -> None:
    if hedged:
        monkeypatch.setattr(Relay, "_hedge", lambda *_: Hedge(after_s=3600, max_tokens=8))

    async def inside() -> None:
        w = World(never)
        tasks = [asyncio.create_task(w.relay.run(w.call())) for _ in range(2 * ROOM)]
        await settle()
        assert w.taken == ROOM
        assert len(w.admission.queue) == ROOM
        await leave(tasks)
        assert w.taken == 0

    asyncio.run(inside())


def test_a_place_that_one_was_told_of_is_given_to_nobody_else() -> None:
    async def inside() -> None:
        w = World(never)
        grants = [await w.placement.granted(w.call(), 1, {}, 0) for _ in range(ROOM)]
        assert grants[0].candidate.endpoint == HOME
        calls = [w.call(), w.call()]
        told, other = (
            asyncio.create_task(w.placement.granted(call, 1, {}, 3600)) for call in calls
        )
        await settle()
        first, second = w.admission.queue
        w.placement.give_back(w.call(), HOME)
        w.admission._next()
        assert first.outcome.done()
        assert second.look(second) is None, "as at its deadline"
        with pytest.raises(ApiError):
            await w.placement.granted(w.call(), 1, {}, 0)
        await told
        assert w.taken == ROOM
        await leave([other])
        assert w.taken == ROOM

    asyncio.run(inside())


@pytest.mark.parametrize("hedged", [True, False])
@pytest.mark.parametrize("leaves_after", range(12))
def test_whenever_clients_leave_their_places_come_back(
    monkeypatch: pytest.MonkeyPatch, leaves_after: int, hedged: bool
) -> None:
    if hedged:
        monkeypatch.setattr(
            Relay, "_hedge", lambda *_: Hedge.model_construct(after_s=0, max_tokens=8)
        )

    async def inside() -> None:
        w = World(never)
        tasks = [asyncio.create_task(w.relay.run(w.call())) for _ in range(ROOM + 3)]
        await settle()
        # Those that leave first make room for those that wait, who leave while they are told.
        for task in tasks[:3]:
            task.cancel()
        for _ in range(leaves_after):
            await asyncio.sleep(0)
        await leave(tasks)
        assert w.taken == 0
        assert not w.admission.busy

    asyncio.run(inside())


@pytest.mark.parametrize("is_sent", [True, False])
def test_an_attempt_that_is_cancelled_before_it_is_sent_has_used_nothing(is_sent: bool) -> None:
    async def connecting(sent: Callable[[], None]) -> Any:
        if is_sent:
            sent()
        await asyncio.Event().wait()

    async def inside() -> World:
        w = World(connecting)
        asking = asyncio.create_task(w.relay.run(w.call()))
        await settle()
        await leave([asking])
        return w

    (record,) = asyncio.run(inside()).records
    assert record.outcome == "cancelled"
    assert (record.prompt_tokens > 0) == is_sent
    assert record.usage_source == ("counted" if is_sent else "none")


def event(said: str) -> bytes:
    return b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % said.encode()


def test_what_a_failed_continuation_has_read_is_no_part_of_what_was_said() -> None:
    end = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    answers = [
        [event("Hello"), b""],
        [event(" there") + b'data: {"error":{"code":1}}\n\n'],
        [event(" world") + end + b"data: [DONE]\n\n"],
    ]

    async def answer(sent: Callable[[], None]) -> Any:
        sent()
        chunks = iter(answers.pop(0))

        async def chunk(_: float) -> bytes:
            return next(chunks)

        return SimpleNamespace(status=200, chunk=chunk, close=lambda: None)

    async def inside() -> World:
        w = World(answer, raised=True)
        await w.relay.run(w.call())
        return w

    w = asyncio.run(inside())
    assert not answers
    assert b"there" not in w.sent
    assert w.sent.endswith(b"data: [DONE]\n\n")
    assert w.remembered[0] == "Hello there", "of the attempt that failed, which nobody saw"
    assert w.remembered[1:] == ["Hello", "Hello world"]
