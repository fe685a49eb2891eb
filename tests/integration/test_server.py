"""The gateway's own HTTP server: what it does before a request is one, and when it stops."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson
import pytest

from orchestrator.gateway.app import Gateway
from orchestrator.gateway.connections import ConnectionLimits
from orchestrator.gateway.server import listen, server
from tests.integration.engines import text, world

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def connected(
    tmp_path: Path,
    test: Callable[[Connection], Awaitable[None]],
    limits: ConnectionLimits | None = None,
) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=limits) as w:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.split(":")[-1]))
            await test((reader, writer))
            writer.close()

    asyncio.run(inside())


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and error code of an answer after which the connection is closed."""
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: " in head
    return int(head.split()[1]), orjson.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"])
def test_a_client_that_does_not_send_its_headers_is_cut_off(tmp_path: Path, sent: bytes) -> None:
    async def test(connection: Connection) -> None:
        reader, writer = connection
        writer.write(sent)
        assert await refusal(reader) == (408, "header_timeout")

    connected(tmp_path, test, ConnectionLimits(head_s=0.1))


def test_a_second_request_has_the_same_time_for_its_headers(tmp_path: Path) -> None:
    async def test(connection: Connection) -> None:
        reader, writer = connection
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200" in await reader.readline()
        await reader.readuntil(b'{"status":"alive"}')
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert await refusal(reader) == (408, "header_timeout")

    connected(tmp_path, test, ConnectionLimits(head_s=0.1))


def test_headers_have_a_largest_size_even_in_many_small_pieces(tmp_path: Path) -> None:
    async def test(connection: Connection) -> None:
        reader, writer = connection
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        for number in range(ConnectionLimits.head_bytes // 1000 + 1):
            writer.write(b"x-%d: %s\r\n" % (number, b"a" * 1000))
        assert await refusal(reader) == (431, "headers_too_large")

    connected(tmp_path, test)


def test_what_is_not_http_is_refused_in_the_shape_of_every_error(tmp_path: Path) -> None:
    async def test(connection: Connection) -> None:
        reader, writer = connection
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        assert await refusal(reader) == (400, "invalid_http")

    connected(tmp_path, test)


def test_a_stopping_gateway_ends_its_streams_whole_and_its_sibling_takes_the_rest(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with world(tmp_path) as w:
            first_listener = listen("http://127.0.0.1:0")
            url = f"http://127.0.0.1:{first_listener.getsockname()[1]}"
            first = server(Gateway(tmp_path))
            stopping = asyncio.create_task(first.serve(sockets=[first_listener]))
            while not first.started:
                await asyncio.sleep(0.01)
            w.url = url
            async with w.post(stream=True, max_tokens=800) as answer:
                started = await answer.content.readline()
                second = server(Gateway(tmp_path))
                serving = asyncio.create_task(second.serve(sockets=[listen(url)]))
                while not second.started:
                    await asyncio.sleep(0.01)
                first.should_exit = True
                while not first_listener._closed:  # type: ignore[attr-defined]
                    await asyncio.sleep(0.01)
                async with aiohttp.ClientSession() as fresh:
                    for _ in range(20):
                        async with fresh.get(f"{url}/healthz") as health:
                            assert health.status == 200
                rest = (started + await answer.read()).decode()
            assert text(rest).split() == [f"t{i}" for i in range(800)]
            assert rest.endswith("data: [DONE]\n\n")
            await stopping
            second.should_exit = True
            await serving

    asyncio.run(inside())


def test_a_client_whose_network_is_lost_is_asked_whether_it_is_there() -> None:
    with listen("http://127.0.0.1:0") as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
