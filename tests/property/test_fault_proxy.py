"""Whatever happens to an engine's bytes on their way, at whichever byte: what the client gets is
the beginning of one answer, once, and it can tell whether it is the whole; every attempt is billed
once.

What nobody can tell is a change within the text of an event: HTTP and JSON have no checksums. A
flipped letter, a chunk left out or doubled as a whole, are what the engine might have said. So
after a change of bytes the text is held to be right where what arrived, read as far as it is valid,
says nothing else than what was sent; for the rest only the end and the bill are.
"""

import asyncio
import itertools
import sqlite3
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import httptools
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.spec import Timeouts
from orchestrator.gateway import ejection
from orchestrator.gateway.attempts import Attempts
from orchestrator.gateway.inflight import Inflight
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import OUT_OF_TIME
from orchestrator.ledger.usage import UsageRecord
from orchestrator.policy import retries
from tests.fault_proxy import CORRUPTING, Answer, Fault, FaultProxy, Kind, boundaries
from tests.integration.engines import text
from tests.integration.running import Running, running

TOKENS = 5
WHOLE = "".join(f" t{n}" for n in range(TOKENS))
NUMBERS = itertools.count()
TIMED = ("timeout", "stalled", OUT_OF_TIME)
"""Outcomes by the clock."""
MOST_PATIENCE = 32
QUICK = {
    "first_token_s: 1": "connect_s: 20, first_token_s: 0.5",
    "between_tokens_s: 1": "between_tokens_s: 0.3",
    "\nworkloads:": "\npolicy: {retry_budget: 1, snapshot_stale_s: 100000}\nworkloads:",
}


@dataclass
class Stack:
    running: Running
    vllm: bool
    length: int = 0
    """Of an answer to which nothing happens."""
    proxies: list[FaultProxy] = field(default_factory=list)
    billed: list[UsageRecord] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    patience: int = 1
    """How many times its limits the gateway waits for engines."""

    @property
    def open(self) -> int:
        """Attempts that the gateway has open upstream."""
        return sum(self.counts)


@dataclass
class Got:
    """By a client."""

    status: int = 0
    body: bytes = b""
    cut: bool = False
    attempts: list[Answer] = field(default_factory=list)
    billed: list[UsageRecord] = field(default_factory=list)

    @property
    def text(self) -> str:
        return text(self.body.decode(errors="replace"))

    @property
    def last(self) -> str:
        """`[DONE]`, the code of a typed error, or nothing."""
        events = self.body.decode(errors="replace").strip().split("\n\n")
        data = events[-1].removeprefix("data: ")
        if data == "[DONE]":
            return data
        try:
            return str(orjson.loads(data)["error"]["code"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""


@pytest.fixture(scope="module", params=["any", "vllm"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """With `vllm` an answer that broke off may go on elsewhere."""
    proxies: list[FaultProxy] = []
    billed: list[UsageRecord] = []

    @asynccontextmanager
    async def through(url: str) -> AsyncIterator[str]:
        async with FaultProxy("127.0.0.1", int(url.rsplit(":", 1)[1])) as proxy:
            proxies.append(proxy)
            yield proxy.url

    used: Callable[[Records, UsageRecord], None] = Records.used

    def remember(records: Records, record: UsageRecord) -> None:
        billed.append(record)
        used(records, record)

    counts: list[int] = []
    add = Inflight.add

    def count(inflight: Inflight, endpoint: str, count: int) -> None:
        counts.append(count)
        add(inflight, endpoint, count)

    directory = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        # Faults shall meet every request, not only the first few.
        patch.setattr(ejection, "FAILURES_IN_A_ROW", 10**9)
        patch.setattr(ejection, "MIN_ATTEMPTS", 10**9)
        patch.setattr(retries, "CAPACITY", 10.0**9)
        patch.setattr(retries.RetryBudget, "spend", lambda _: True)
        patch.setattr(Records, "used", remember)
        patch.setattr(Inflight, "add", count)
        with running(
            directory, total_s=1, through=through, replacing=QUICK, vllm=request.param == "vllm"
        ) as made:
            stack = Stack(made, request.param == "vllm", 0, proxies, billed, counts)
            patch.setattr(Attempts, "_timeouts", property(partial(patient, stack)))
            stack.length = len(recorded(stack))
            yield stack
    rows = sqlite3.connect(directory / "ledger.sqlite").execute(
        "SELECT request_id, attempt, count(*) FROM usage GROUP BY request_id, attempt"
    )
    assert Counter({(i, a): n for i, a, n in rows}) == Counter(
        (record.request_id, record.attempt) for record in billed
    )


LIMITS = Attempts._timeouts


def patient(stack: Stack, attempts: Attempts) -> Timeouts:
    limits = LIMITS.__get__(attempts)
    assert isinstance(limits, Timeouts)
    times = {name: limit * stack.patience for name, limit in limits}
    return limits.model_copy(update=times)


def ask(stack: Stack, faults: list[Fault | None], stream: bool = True) -> Got:
    """What a client gets whose attempts meet these faults, one after the other.

    Where nothing keeps bytes back, an attempt that ends by the clock had too little of the machine:
    it is made again with more patience, and whatever hangs does so again.
    """
    stack.patience = 1
    keeps_back = any(f and (f.kind is Kind.STALL or f.kind in CORRUPTING) for f in faults)
    try:
        while True:
            got = ask_once(stack, faults, stream)
            is_timed = any(record.outcome in TIMED for record in got.billed)
            if keeps_back or not is_timed or stack.patience == MOST_PATIENCE:
                return got
            stack.patience *= 2
    finally:
        stack.patience = 1


def ask_once(stack: Stack, faults: list[Fault | None], stream: bool) -> Got:
    async def inside() -> Got:
        w, request_id, got = stack.running.w, f"request-{next(NUMBERS)}", Got()
        # Whoever is asked next takes the next. What an earlier request left behind, in engines or
        # on its way, keeps to its own.
        left = deque(faults)
        for proxy in stack.proxies:
            proxy.faults, proxy.answers = left, []
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": TOKENS,
            "stream": stream,
        }
        headers = {"authorization": f"Bearer {w.keys['open']}", "x-request-id": request_id}
        try:
            async with w.session.post(
                f"{w.url}/v1/chat/completions", json=body, headers=headers
            ) as answer:
                got.status = answer.status
                async for part in answer.content.iter_any():
                    got.body += part
        except aiohttp.ClientError:
            got.cut = True
        async with asyncio.timeout(60):
            while stack.open:
                await asyncio.sleep(0.001)
        # A kept connection that ends without a byte is taken to have been closed before it was
        # asked, and the same attempt is made on a fresh one.
        answers = (answer for proxy in stack.proxies for answer in proxy.answers)
        got.attempts = [answer for answer in answers if answer.sent]
        got.billed = [record for record in stack.billed if record.request_id == request_id]
        return got

    return stack.running.run(inside(), 120)


class Reading:
    """Of an answer's bytes, as far as they are valid."""

    def __init__(self, data: bytes) -> None:
        self._body = b""
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)
        self.text = ""
        self.told: list[object] = []
        """Token counts, by which the rest of a broken answer is asked for."""
        self.ended = False
        for event in self._body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")[:-1]:
            try:
                self.text += self._said(event)
            except (ValueError, KeyError, TypeError, AttributeError, LookupError):
                break

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def _said(self, event: bytes) -> str:
        lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b" ".join(line[5:].strip() for line in lines)
        self.ended = self.ended or data == b"[DONE]"
        if not data or self.ended:
            return ""
        chunk = orjson.loads(data)
        choices = chunk.get("choices") or []
        if choices and chunk.get("usage"):
            self.told.append(chunk["usage"].get("completion_tokens"))
        return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


def changes_what_is_said(answer: Answer) -> bool:
    """Whether the bytes that arrived say something that the engine did not."""
    given, sent = Reading(bytes(answer.given)), Reading(bytes(answer.sent))
    left_out = sent.ended and sent.text != given.text
    if sent.told[: len(given.told)] != given.told[: len(sent.told)]:
        return True
    return left_out or not given.text.startswith(sent.text) or given.status != sent.status


def holds(stack: Stack, got: Got) -> None:
    """Whatever the faults were."""
    assert got.status in (200, 503, 504) or (got.cut and not got.status)
    if got.status == 200:
        # An end that is none is seen: the connection is cut within the answer.
        assert got.cut or got.last in ("[DONE]", "stream_interrupted", "time_limit")
    numbers = [record.attempt for record in got.billed]
    assert len(numbers) == len(set(numbers)), "each attempt is billed once"
    assert len(numbers) >= len(got.attempts), "and each is"
    if any(changes_what_is_said(answer) for answer in got.attempts):
        return
    assert WHOLE.startswith(got.text)
    if got.last == "[DONE]" and not got.cut:
        assert got.text == WHOLE
        assert got.billed[-1].outcome == "complete"


def recorded(stack: Stack) -> bytes:
    """An answer as it passes when nothing happens to it."""
    got = ask(stack, [])
    assert (got.text, got.last, got.cut) == (WHOLE, "[DONE]", False)
    return bytes(got.attempts[0].sent)


ANYWHERE = st.floats(0, 1)
FAULTS = st.builds(
    Fault,
    # A stall takes its time.
    st.sampled_from([kind for kind in Kind if kind is not Kind.STALL] * 2 + [Kind.STALL]),
    st.just(0),
    st.integers(1, 300),
    st.binary(min_size=1, max_size=6) | st.sampled_from([b"\n\n", b"\r\n", b"0\r\n\r\n", b" "]),
    st.sampled_from([0.0, 0.001]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FAULTS, ANYWHERE), min_size=1, max_size=3))
def test_at_whichever_byte_something_happens_the_text_is_a_beginning_once_and_ends_clearly(
    stack: Stack, faults: list[tuple[Fault, float]]
) -> None:
    length = stack.length
    placed: list[Fault | None] = [
        Fault(f.kind, int(place * length), f.length, f.data, f.wait_s) for f, place in faults
    ]
    holds(stack, ask(stack, placed))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.STALL])
def test_at_every_boundary_of_chunks_the_text_is_a_beginning_once_and_ends_clearly(
    stack: Stack, kind: Kind
) -> None:
    answer = recorded(stack)
    edges = [0, *boundaries(answer)]
    for before, at in itertools.pairwise(edges):
        got = ask(stack, [Fault(kind, at, length=at - before)])
        holds(stack, got)
        if kind not in CORRUPTING and stack.vllm:
            assert (got.text, got.last) == (WHOLE, "[DONE]"), "another goes on"


def test_a_stall_after_every_event_is_noticed(stack: Stack) -> None:
    answer = recorded(stack)
    for at in boundaries(answer)[3::6]:
        got = ask(stack, [Fault(Kind.STALL, at)])
        holds(stack, got)
        assert got.last


@settings(max_examples=60, deadline=None)
@given(FAULTS.filter(lambda fault: fault.kind is not Kind.STALL), ANYWHERE)
def test_a_whole_answer_comes_whole_or_not_at_all(stack: Stack, fault: Fault, place: float) -> None:
    answer = bytes(ask(stack, [], stream=False).attempts[0].sent)
    placed = Fault(fault.kind, int(place * len(answer)), fault.length, fault.data, fault.wait_s)
    got = ask(stack, [placed] * 3, stream=False)
    assert not got.cut
    assert got.status in (200, 503, 504)
    assert len(got.billed) == len({record.attempt for record in got.billed}) >= len(got.attempts)
    if got.status == 200 and fault.kind not in CORRUPTING:
        assert orjson.loads(got.body)["choices"][0]["message"]["content"] == WHOLE
    elif got.status == 200:
        assert isinstance(orjson.loads(got.body), dict)
