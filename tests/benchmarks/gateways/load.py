"""A closed loop of clients over bare connections: each asks again as soon as it has its answer.

It reads of an answer what tells that it is whole: its status and framing, and of a stream the
number of its tokens and its end.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import orjson

from tests.benchmarks.gateways.engine import MODEL, TOKENS, WORD

WARM_UP = 3
"""Answers of each client that do not count."""
AT_LEAST = 4
"""Answers of each client that do, however long they take."""
STALLED_S = 30
BODIES = 32
"""Different ones, that take turns."""
_PROSE = (
    "the service reads a report about water pressure and writes a short answer for every engineer "
    "who asks which valve is open while the pumps of both towers are at rest until morning so that "
    "nobody has to walk down there again with a lamp just to look at one dial and come back up"
)
_WORDS = _PROSE.split()
_TOKEN = f'{WORD}"'.encode()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send chats, and whose processor time they cost."""

    name: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None
    """Of the gateway; its children count too."""


@dataclass(frozen=True, slots=True)
class Scenario:
    clients: int
    body_bytes: int
    stream: bool

    @property
    def title(self) -> str:
        kind = f"streams of {TOKENS} tokens" if self.stream else "whole answers"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{clients}, {self.body_bytes // 1024} KB, {kind}"


SCENARIOS = (
    Scenario(1, 1024, stream=False),
    Scenario(32, 1024, stream=False),
    Scenario(1, 32 * 1024, stream=False),
    Scenario(32, 32 * 1024, stream=False),
    Scenario(1, 1024, stream=True),
    Scenario(32, 1024, stream=True),
)


@dataclass(frozen=True, slots=True)
class Figures:
    requests_per_s: float
    tokens_per_s: float
    """Streamed ones alone."""
    p50_s: float
    p95_s: float


def bodies(scenario: Scenario) -> list[bytes]:
    """Chats of this size that say nothing sensitive."""
    return [_body(scenario, random.Random(number)) for number in range(BODIES)]


def _body(scenario: Scenario, chance: random.Random) -> bytes:
    messages = [{"role": "system", "content": _prose(chance, 200)}]
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": messages,
        "max_tokens": TOKENS,
        "temperature": 0.7,
    }
    if scenario.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    left = scenario.body_bytes - len(orjson.dumps(body))
    # A conversation of turns of about 2 KB, whose last is the user's.
    turns = 1 + 2 * (left // 4096)
    for number in range(turns):
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": _prose(chance, left // turns - 32)})
    return orjson.dumps(body)


def _prose(chance: random.Random, size: int) -> str:
    text = ""
    while len(text) < size:
        text += " ".join(chance.choices(_WORDS, k=12)).capitalize() + ". "
    return text[:size]


class Refused(RuntimeError):
    """An answer that is not what was asked for."""


class _Run:
    """What all clients of one measurement share."""

    def __init__(self, target: Target, scenario: Scenario) -> None:
        self.target = target
        self.stream = scenario.stream
        head = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        self.requests = [
            (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\n"
                f"content-type: application/json\r\n{head}content-length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for body in bodies(scenario)
        ]
        self.times_s: list[float] = []
        self.done_s: list[float] = []
        self.answers = 0
        self.stopping = False
        self.warm = 0
        """Clients that have warmed up."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(Refused(f"{self.target.name}: {reason}"))


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._requests = cycle(run.requests[number:] + run.requests[:number])
        self._answers = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.stopping:
            self._run.fail("closed the connection")

    def _ask(self) -> None:
        self._data = b""
        self._parts: list[bytes] = []
        self._length = -1
        """Of the body, -1 before the head is there, -2 when it comes in chunks."""
        self._started_s = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        if self._length == -1 and not self._take_head():
            return
        if self._length == -2:
            if self._take_chunks():
                self._whole(b"".join(self._parts))
        elif len(self._data) >= self._length:
            self._whole(self._data)

    def _take_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head, self._data = self._data[:end].lower(), self._data[end:]
        if not head.startswith(b"http/1.1 200"):
            self._run.fail(f"answered {head[9:12].decode()}: {self._data[:300]!r}")
            self._transport.close()
            return False
        found = head.find(b"\r\ncontent-length:")
        if found >= 0:
            self._length = int(head[found + 17 : head.index(b"\r\n", found + 17)])
        else:
            self._length = -2
        return True

    def _take_chunks(self) -> bool:
        """Whether the last one is there."""
        data, at = self._data, 0
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line], 16)
            end = line + 2 + size
            if len(data) < end + 2:
                break
            if not size:
                return True
            self._parts.append(data[line + 2 : end])
            at = end + 2
        self._data = data[at:]
        return False

    def _whole(self, body: bytes) -> None:
        run = self._run
        now_s = time.perf_counter()
        if run.stream:
            whole = body.count(_TOKEN) == TOKENS and body.rstrip().endswith(b"data: [DONE]")
        else:
            whole = b'"usage"' in body
        if not whole:
            run.fail(f"broke off: {body[-300:]!r}")
        self._answers += 1
        run.answers += 1
        if self._answers > WARM_UP:
            run.times_s.append(now_s - self._started_s)
            run.done_s.append(now_s)
        elif self._answers == WARM_UP:
            run.warm += 1
        if run.stopping:
            self._transport.close()
        else:
            self._ask()


async def measure(target: Target, scenario: Scenario, seconds: float) -> tuple[Figures, int]:
    """Over so long, once every client has warmed up; with the number of all answers, those that do
    not count too. Raises Refused."""
    run = _Run(target, scenario)
    loop = asyncio.get_running_loop()
    transports = [
        (
            await loop.create_connection(
                lambda number=number: _Client(run, number % BODIES), "127.0.0.1", target.port
            )
        )[0]
        for number in range(scenario.clients)
    ]
    try:
        await _until(run, lambda: run.warm == scenario.clients)
        began_s, counted = time.perf_counter(), len(run.done_s)
        wanted = counted + AT_LEAST * scenario.clients
        await _until(run, lambda: len(run.done_s) >= wanted, seconds)
        done = len(run.done_s)
        elapsed_s = run.done_s[done - 1] - began_s
    finally:
        run.stopping = True
        for transport in transports:
            transport.abort()
        run.failed.cancel()
    rate = (done - counted) / elapsed_s
    p50_s, p95_s = np.quantile(run.times_s[counted:done], (0.5, 0.95))
    figures = Figures(rate, rate * TOKENS * scenario.stream, float(p50_s), float(p95_s))
    return figures, run.answers


async def _until(run: _Run, holds: Any, at_least_s: float = 0) -> None:
    """Raises Refused when an answer is not whole, or nothing comes any more."""
    began_s = time.perf_counter()
    seen, seen_s = len(run.done_s), began_s
    wait_s = at_least_s or 0.01
    while True:
        await asyncio.wait([run.failed], timeout=wait_s)
        if run.failed.done():
            run.failed.result()
        now_s = time.perf_counter()
        if len(run.done_s) != seen:
            seen, seen_s = len(run.done_s), now_s
        if now_s - seen_s > STALLED_S:
            raise Refused(f"{run.target.name}: no answer in {STALLED_S} s")
        if now_s - began_s >= at_least_s and holds():
            return
        wait_s = 0.05
