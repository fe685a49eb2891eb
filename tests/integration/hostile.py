"""What clients that mean harm need: bytes of their own, and a client that behaves beside them."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import orjson

from orchestrator.gateway.connections import ConnectionLimits
from tests.integration.engines import World
from tests.integration.running import Running, running

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n"
HEAD = CHAT + b"host: a\r\n"
AFTER = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
WHOLE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextmanager
def attacked(directory: Path) -> Iterator[Running]:
    """A world whose gateway waits for little, and takes bodies that are not small."""
    with running(
        directory,
        limits=ConnectionLimits(head_s=2, linger_s=0.5, keep_alive_s=2),
        replacing={"max_body_bytes: 2000": "max_body_bytes: 400000"},
    ) as made:
        yield made


async def connect(w: World) -> Connection:
    return await asyncio.open_connection("127.0.0.1", int(w.url.rsplit(":", 1)[1]))


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Until the server closes. Raises TimeoutError when it does not."""
    got = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                got += part
    return got


async def sent(w: World, data: bytes, half_close: bool = False) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    reader, writer = await connect(w)
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()
    got = await read_to_end(reader)
    writer.close()
    return got


def refusal(got: bytes) -> tuple[int, str]:
    """Status and code of the one answer that there is, in the shape of every error."""
    assert len(STATUS.findall(got)) == 1, got
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: " in head
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def authorized(w: World, path: bytes = b"/v1/chat/completions") -> bytes:
    key = w.keys["open"].encode()
    return b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n" % (path, key)


async def serves(w: World) -> None:
    async with w.post() as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"] == " t0 t1 t2"


@asynccontextmanager
async def served_meanwhile(w: World) -> AsyncIterator[None]:
    """A client that behaves, in a connection that it keeps and in fresh ones, all the while."""
    done, count = asyncio.Event(), 0

    async def behave() -> None:
        nonlocal count
        while not done.is_set():
            await serves(w)
            answer = await sent(w, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert STATUS.findall(answer) == [b"200"]
            count += 1
            await asyncio.sleep(0.01)

    behaving = asyncio.create_task(behave())
    try:
        yield
    finally:
        done.set()
        await behaving
    assert count
