"""Clients that send too much, too slowly or not at all, or come in floods: each is cut off within
its limits, and meanwhile a client that behaves is served."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvloop

from orchestrator.gateway import request_body
from orchestrator.gateway.connections import ConnectionLimits
from tests.integration.engines import World, world
from tests.integration.hostile import (
    AFTER,
    HEAD,
    STATUS,
    WHOLE,
    Connection,
    attacked,
    authorized,
    connect,
    read_to_end,
    refusal,
    sent,
    served_meanwhile,
    serves,
)
from tests.integration.running import Running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with attacked(tmp_path_factory.mktemp("hostile")) as made:
        yield made


def test_a_head_of_many_or_large_headers_is_refused_however_it_comes(stack: Running) -> None:
    large = HEAD + b"x: " + b"a" * 40_000 + b"\r\n\r\n"
    many = HEAD + b"".join(b"x-%d: a\r\n" % i for i in range(1000)) + b"\r\n"
    target = b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    blank = b"\r\n" * 1_000_000
    for data in (large, many, target, blank):
        got = stack.run(sent(stack.w, data + AFTER))
        assert refusal(got) == (431, "headers_too_large")
    endless = stack.run(sent(stack.w, HEAD + b"x: " + b"a" * 20_000_000))
    assert refusal(endless) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "overhead",
    [
        b"".join(b"x-%d: a\r\n" % i for i in range(100_000)),
        b"x: " + b"a" * 1_000_000,
    ],
    ids=["many", "large"],
)
def test_a_flood_of_trailers_is_refused(stack: Running, overhead: bytes) -> None:
    head = authorized(stack.w) + b"transfer-encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
    assert refusal(stack.run(sent(stack.w, head + overhead))) == (400, "invalid_http")


def test_a_flood_of_chunk_extensions_is_refused(stack: Running) -> None:
    head = authorized(stack.w) + b"transfer-encoding: chunked\r\n\r\n"
    flood = (b"1;" + b"a" * 1000 + b"\r\n \r\n") * 1000
    assert refusal(stack.run(sent(stack.w, head + flood))) == (400, "invalid_http")


def test_a_body_in_chunks_of_one_byte_is_no_flood(stack: Running) -> None:
    body = b'{"model": "m", "max_tokens": 3, "messages": [{"content": "%b"}]}' % (b"a " * 50_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = authorized(stack.w) + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    got = stack.run(sent(stack.w, head + chunks))
    # The model's context is smaller: the engine has read it.
    assert STATUS.findall(got) == [b"400"]
    assert b"context length" in got


MEGABYTE = b"a" * 1_000_000


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_megabytes_is_refused_and_not_kept(stack: Running, declared: bool) -> None:
    framing = b"content-length: 100000000" if declared else b"transfer-encoding: chunked"
    rss_bytes = psutil.Process().memory_info().rss

    async def test() -> bytes:
        reader, writer = await connect(stack.w)
        writer.write(authorized(stack.w) + framing + b"\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(100):
                piece = MEGABYTE if declared else b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE)
                writer.write(piece)
                await writer.drain()
        got = await read_to_end(reader)
        writer.close()
        return got

    assert refusal(stack.run(test())) == (413, "body_too_large")
    assert psutil.Process().memory_info().rss - rss_bytes < 50_000_000


def test_a_body_that_the_client_says_is_short_ends_there(stack: Running) -> None:
    data = authorized(stack.w) + b"content-length: 2\r\n\r\n{}" + MEGABYTE * 10
    got = stack.run(sent(stack.w, data))
    assert STATUS.findall(got) == [b"400"]
    assert b"missing_field" in got


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_come_is_not_waited_for(
    stack: Running, monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.3)
    got = stack.run(sent(stack.w, authorized(stack.w) + framing + b"\r\n\r\n"))
    assert refusal(got) == (408, "body_timeout")


def test_who_waits_to_be_told_to_send_a_body_is_told_what_is_wrong_instead(stack: Running) -> None:
    expecting = b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n"
    got = stack.run(sent(stack.w, HEAD + expecting))
    assert refusal(got) == (401, "missing_api_key")
    too_large = b"expect: 100-continue\r\ncontent-length: 500000\r\n\r\n"
    got = stack.run(sent(stack.w, authorized(stack.w) + too_large))
    assert refusal(got) == (413, "body_too_large")


def test_slow_heads_are_cut_off_and_harm_nobody(tmp_path: Path) -> None:
    async def dribble(w: World) -> bytes:
        reader, writer = await connect(w)
        reading = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            for byte in HEAD + b"x: " + b"a" * 1000:
                if reading.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        got = await reading
        writer.close()
        return got

    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(head_s=0.5, linger_s=0.3)) as w:
            async with asyncio.timeout(30), served_meanwhile(w):
                answers = await asyncio.gather(*(dribble(w) for _ in range(200)))
            assert {refusal(got) for got in answers} == {(408, "header_timeout")}

    uvloop.run(inside())


def test_slow_bodies_are_cut_off_and_harm_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.5)

    async def dribble(w: World) -> bytes:
        reader, writer = await connect(w)
        writer.write(authorized(w) + b"content-length: 1000\r\n\r\n")
        reading = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            while not reading.done():
                writer.write(b"a")
                await asyncio.sleep(0.05)
        got = await reading
        writer.close()
        return got

    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(linger_s=0.3), max_open=300) as w:
            async with asyncio.timeout(30), served_meanwhile(w):
                answers = await asyncio.gather(*(dribble(w) for _ in range(200)))
            assert {refusal(got) for got in answers} == {(408, "body_timeout")}

    uvloop.run(inside())


async def still_open(connections: list[Connection]) -> int:
    """Of connections to which nothing was ever said, those that the server has not closed."""

    async def is_open(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(0.05):
                while await reader.read(1000):
                    pass
        except TimeoutError:
            return True
        except ConnectionError:
            pass
        return False

    return sum(await asyncio.gather(*(is_open(reader) for reader, _ in connections)))


def test_of_a_flood_of_connections_only_so_many_stay_and_new_ones_are_served(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(connections=100)) as w:
            async with served_meanwhile(w):
                flood = [await connect(w) for _ in range(2000)]
                for _, writer in flood[::2]:
                    writer.write(b"GET /healthz HTTP/1.1\r\n")
            assert 0 < await still_open(flood) <= 100
            await serves(w)
            for _, writer in flood:
                writer.close()

    uvloop.run(inside())


def test_two_thousand_idle_connections_harm_nobody_and_are_closed_in_time(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(head_s=3, linger_s=0.3)) as w:
            process = psutil.Process()
            files = process.num_fds()
            flood = [await connect(w) for _ in range(2000)]
            async with served_meanwhile(w):
                assert await still_open(flood) == 2000
            async with asyncio.timeout(20):
                while await still_open(flood):
                    await asyncio.sleep(0.1)
            for _, writer in flood:
                writer.close()
            async with asyncio.timeout(20):
                while process.num_fds() > files + 10:
                    await asyncio.sleep(0.1)

    uvloop.run(inside())


def test_a_connection_too_many_beside_busy_ones_is_told_to_come_back(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, home="hang", limits=ConnectionLimits(connections=2)) as w:
            waiting = [asyncio.create_task(_status(w)) for _ in range(2)]
            while len(w.home.received) < 2:
                await asyncio.sleep(0.01)
            reader, writer = await connect(w)
            got = await read_to_end(reader)
            assert refusal(got) == (429, "too_many_connections")
            assert b"\r\nretry-after: " in got
            writer.close()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _status(w: World) -> int:
        async with w.post("closed") as answer:
            return int(answer.status)

    uvloop.run(inside())


def test_a_kept_connection_is_closed_when_nothing_more_comes(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(keep_alive_s=0.2)) as w:
            got = await sent(w, WHOLE)
            assert STATUS.findall(got) == [b"200"]

    uvloop.run(inside())
