"""The HTTP client that reaches endpoints, against servers that send byte by byte, too much, too
little, or hang up."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from orchestrator.gateway import http1
from orchestrator.gateway.http1 import ConnectionPool, HttpFailed, HttpResponse, Origin

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
BODY = b"{}"


@asynccontextmanager
async def serving(serve: Serve) -> Any:
    """A pool of connections to a server that this function is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = ConnectionPool(Origin.of(f"http://127.0.0.1:{port}"), connect_s=5)
    try:
        yield pool
    finally:
        pool.close()
        server.close()


async def asked(reader: asyncio.StreamReader) -> None:
    await reader.readexactly(len(HEAD) + len(BODY))


async def whole(response: HttpResponse) -> bytes:
    parts = []
    while part := await response.chunk(5):
        parts.append(part)
    return b"".join(parts)


def answering(*pieces: bytes, times: int = 1) -> Serve:
    """Sends these pieces, each in a packet of its own, for each request; then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            await asked(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.0005)

    return serve


def run(serve: Serve, test: Callable[[ConnectionPool], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with asyncio.timeout(20), serving(serve) as pool:
            await test(pool)

    for loop in (uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(inside())


WITH_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhello"


@pytest.mark.parametrize("answer", [WITH_LENGTH, CHUNKED, TO_THE_END])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_is_whole_however_it_is_framed_and_cut_into_pieces(
    answer: bytes, size: int
) -> None:
    pieces = [answer[i : i + size] for i in range(0, len(answer), size)]

    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert response.status == 200
        assert await whole(response) == b"hello"
        response.close()

    run(answering(*pieces), test)


@pytest.mark.parametrize("answer", [WITH_LENGTH, CHUNKED])
def test_a_connection_carries_one_request_after_another(answer: bytes) -> None:
    async def test(pool: ConnectionPool) -> None:
        for _ in range(5):
            response = await HttpResponse(pool, HEAD, BODY).start(5)
            assert await whole(response) == b"hello"
            response.close()
            assert len(pool) == 1

    run(answering(answer, times=5), test)


def test_a_connection_that_was_closed_meanwhile_costs_the_request_nothing() -> None:
    async def test(pool: ConnectionPool) -> None:
        for number in range(5):
            response = await HttpResponse(pool, HEAD, BODY).start(5)
            assert await whole(response) == b"hello"
            response.close()
            # Now it is known to be closed, now it is not.
            await asyncio.sleep(0.01 if number % 2 else 0)

    run(answering(WITH_LENGTH), test)


def test_an_interim_answer_is_passed_over() -> None:
    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert (response.status, await whole(response)) == (200, b"hello")
        response.close()

    run(answering(b"HTTP/1.1 100 Continue\r\n\r\n", WITH_LENGTH), test)


@pytest.mark.parametrize("cut", range(1, len(WITH_LENGTH) - 1, 6))
@pytest.mark.parametrize("answer", [WITH_LENGTH, CHUNKED])
def test_an_answer_that_breaks_off_is_never_taken_for_whole(answer: bytes, cut: int) -> None:
    async def test(pool: ConnectionPool) -> None:
        response = HttpResponse(pool, HEAD, BODY)
        with pytest.raises(HttpFailed) as failed:
            await response.start(5)
            await whole(response)
        assert failed.value.reason in ("cut", "unreachable")
        response.close()
        assert len(pool) == 0

    run(answering(answer[:cut]), test)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nxx",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * (http1.MAX_HEAD_BYTES + 1),
    ],
)
def test_what_is_no_proper_answer_is_refused(answer: bytes) -> None:
    async def test(pool: ConnectionPool) -> None:
        response = HttpResponse(pool, HEAD, BODY)
        with pytest.raises(HttpFailed) as failed:
            await response.start(5)
            await whole(response)
        assert failed.value.reason == "protocol"
        response.close()
        assert len(pool) == 0

    run(answering(answer), test)


def test_bytes_after_an_answer_are_no_answer_to_the_next_request() -> None:
    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert await whole(response) == b"hello"
        response.close()
        await asyncio.sleep(0.05)
        assert len(pool) == 0

    run(answering(WITH_LENGTH, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"), test)


def test_silence_is_told_from_an_end() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        await reader.read()

    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert await response.chunk(5) == b"he"
        with pytest.raises(HttpFailed, match="stalled"):
            await response.chunk(0.05)
        response.close()
        assert len(pool) == 0

    run(silent, test)


def test_a_server_that_takes_the_request_and_says_nothing_times_out() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 2")
        await reader.read()

    async def test(pool: ConnectionPool) -> None:
        response = HttpResponse(pool, HEAD, BODY)
        with pytest.raises(HttpFailed, match="timeout"):
            await response.start(0.1)
        response.close()

    run(mute, test)


def test_leaving_an_answer_hangs_up_at_once() -> None:
    gone = threading.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n")
        await reader.read()
        gone.set()

    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert await response.chunk(5) == b"h"
        response.close()
        await asyncio.to_thread(gone.wait, 10)
        assert gone.is_set()
        gone.clear()

    run(endless, test)


def test_what_is_not_read_stays_with_the_server() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent = 0
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"a" * 100_000)
            await writer.drain()
            sent += 100_000

    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        await asyncio.sleep(0.3)
        assert sent < 30_000_000
        assert len(await whole(response)) == 100_000_000
        response.close()

    run(flood, test)


def test_an_interrupted_answer_fails_for_the_reason_given() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n")
        await reader.read()

    async def test(pool: ConnectionPool) -> None:
        response = await HttpResponse(pool, HEAD, BODY).start(5)
        assert await response.chunk(5) == b"h"
        asyncio.get_running_loop().call_later(0.05, response.interrupt, "evicted")
        with pytest.raises(HttpFailed, match="evicted"):
            await response.chunk(5)
        response.close()

    run(endless, test)


def test_nobody_listening_is_unreachable() -> None:
    async def inside() -> None:
        pool = ConnectionPool(Origin.of("http://127.0.0.1:9"), connect_s=1)
        with pytest.raises(HttpFailed, match="unreachable"):
            await HttpResponse(pool, HEAD, BODY).start(5)

    asyncio.run(inside())
