"""Clients that go away without a word, at any moment: nobody works for them any more, every attempt
of theirs is billed once, and nothing of them is left."""

import asyncio
import os
import random
import socket
import statistics
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import orjson
import psutil
import pytest
import uvloop

from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from tests.integration.engines import World, billed, world

CLIENTS = 1000
MOMENTS = ("head", "body", "answer", "next")
"""Up to which a client stays; `next`: it has sent another request already."""
MANNERS = ("close", "reset", "half-close")
SLOW = EngineSpec("m", ttft_s=0.2, itl_s=0.01, max_num_seqs=16)


def request(w: World, number: int, stream: bool) -> bytes:
    body = orjson.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 1000,
            "stream": stream,
        }
    )
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
        f"x-request-id: client-{number}\r\nauthorization: Bearer {w.keys['open']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def vanish(w: World, number: int, chance: random.Random) -> float:
    """Sends all of a request or a part, waits, reads, and goes, at moments of chance. When it
    went."""
    await asyncio.sleep(chance.uniform(0, 2))
    moment, manner = chance.choice(MOMENTS), chance.choice(MANNERS)
    data = request(w, number, stream=chance.random() < 0.6)
    body_at = data.index(b"\r\n\r\n") + 4
    end = {
        "head": chance.randrange(body_at),
        "body": chance.randrange(body_at, len(data)),
        "answer": len(data),
        "next": len(data),
    }[moment]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.rsplit(":", 1)[1]))
    writer.write(data[:end])
    if moment == "next":
        writer.write(data)
    with suppress(TimeoutError):
        async with asyncio.timeout(chance.expovariate(2)):
            while await reader.read(1000):
                pass
    went_s = time.monotonic()
    await go(reader, writer, manner)
    return went_s


async def go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, manner: str) -> None:
    with suppress(ConnectionError):
        if manner == "half-close":
            writer.write_eof()
            while await reader.read(1000):
                pass  # until the gateway too has closed
        if manner == "reset":
            opened: socket.socket = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        await writer.wait_closed()


def at_work(*engines: SimulatedEngine) -> float:
    """Requests that engines run or hold."""
    lines = [line for e in engines for line in e.metrics.exposition().decode().splitlines()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{"))
    )


async def inflight(w: World) -> float:
    """What the gateway takes to be open upstream."""
    lines = (await w.metrics()).splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("orchestrator_inflight_requests{")
    )


@pytest.mark.parametrize("more", ["", "hedge: {after_s: 0.1, max_tokens: 2000}"])
def test_a_thousand_clients_vanish_and_nothing_of_them_is_left(tmp_path: Path, more: str) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def inside() -> None:
        patient = {
            "first_token_s: 1, between_tokens_s: 1": "first_token_s: 60, between_tokens_s: 60",
            "max_num_seqs: 4": "max_num_seqs: 500",
        }
        async with world(tmp_path, max_open=2000, spec=SLOW, replacing=patient, more=more) as w:
            async with w.post() as answer:
                assert answer.status == 200
            process = psutil.Process()
            files = process.num_fds()
            tasks = len(asyncio.all_tasks())
            async with asyncio.timeout(60):
                gone_s = await asyncio.gather(
                    *(vanish(w, n, random.Random(chance.random())) for n in range(CLIENTS))
                )
                while at_work(w.home, w.away) or await inflight(w):
                    await asyncio.sleep(0.01)
            print(f"idle {time.monotonic() - max(gone_s):.3f} s after the last client went")
            async with asyncio.timeout(20):
                # Connections to engines may be kept for the next request, for some time.
                while len(asyncio.all_tasks()) > tasks + 40 or process.num_fds() > files + 80:
                    await asyncio.sleep(0.05)
            received = Counter(
                r.request_id.removeprefix("chatcmpl-") for e in (w.home, w.away) for r in e.received
            )
            assert max(received.values()) == 1
            # On a slow machine most have gone before their request was read.
            assert len(received) > CLIENTS / 100
            assert w.home.cancelled + w.away.cancelled > CLIENTS / 100
            for _ in range(2):
                async with w.post() as answer:
                    assert answer.status == 200
        return received

    received = uvloop.run(inside())
    every = billed(tmp_path, "request_id, attempt, outcome, usage_source")
    outcomes = {
        request_id if attempt == 1 else f"{request_id}-{attempt}": (outcome, source)
        for request_id, attempt, outcome, source in every
    }
    assert len(outcomes) == len(every), "each attempt is billed once"
    assert set(received) <= set(outcomes)
    of_the_vanished = {v for k, v in outcomes.items() if k.startswith("client-")}
    assert of_the_vanished <= {("cancelled", source) for source in ("engine", "counted", "none")}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("manner", MANNERS)
def test_an_engine_is_told_at_once_that_its_client_has_gone(
    tmp_path: Path, stream: bool, manner: str
) -> None:
    async def inside() -> None:
        took_s = []
        async with world(tmp_path, spec=EngineSpec("m", ttft_s=0.01, itl_s=0.01)) as w:
            for number in range(10):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", int(w.url.rsplit(":", 1)[1])
                )
                writer.write(request(w, number, stream))
                if stream:
                    await reader.readuntil(b"t1")
                while not at_work(w.home, w.away):
                    await asyncio.sleep(0.001)
                gone_s = time.monotonic()
                leaving = asyncio.create_task(go(reader, writer, manner))
                async with asyncio.timeout(10):
                    while w.home.cancelled + w.away.cancelled <= number:
                        await asyncio.sleep(0.0005)
                took_s.append(time.monotonic() - gone_s)
                assert not at_work(w.home, w.away)
                leaving.cancel()
                writer.close()
        print(
            f"cancelled upstream after {statistics.median(took_s) * 1000:.1f} ms, "
            f"{max(took_s) * 1000:.1f} ms at most ({manner}, {'stream' if stream else 'whole'})"
        )

    uvloop.run(inside())
