"""What one connection holds for a client that does not read, and when it gives up."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from orchestrator.gateway.connection import ClientConnection
from orchestrator.gateway.connections import ConnectionLimits, Connections

PIECE = b"a" * 100
LIMITS = ConnectionLimits(unread_bytes=1000, lent_unread_bytes=10_000, all_lent_bytes=20_000)
REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"


def server() -> Connections:
    return Connections(LIMITS, lambda: 1, lambda _: None)


class Transport:
    """To a client that reads only when told to."""

    def __init__(self) -> None:
        self.unread_bytes = 0
        self.aborted = self.closed = False
        self.high = math.inf
        self.protocol: ClientConnection
        self._paused = False

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        self.unread_bytes += len(data)
        if self.unread_bytes > self.high and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def read(self, count: float = math.inf) -> None:
        self.unread_bytes -= min(int(min(count, 1e9)), self.unread_bytes)
        if self._paused and self.unread_bytes <= self.high // 4:
            self._paused = False
            self.protocol.resume_writing()

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def write_eof(self) -> None:
        pass


async def endless(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)


async def short(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    headers = [(b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PIECE})


def connected(connections: Connections, app: Any) -> Transport:
    """A client of its own that has sent its request."""
    state = SimpleNamespace(connections=set(), tasks=set())
    transport = Transport()
    protocol = ClientConnection(connections, SimpleNamespace(loaded_app=app), state, {})  # type: ignore[arg-type]
    transport.protocol = protocol
    protocol.connection_made(transport)  # type: ignore[arg-type]
    protocol.data_received(REQUEST)
    return transport


async def settled() -> None:
    for _ in range(500):
        await asyncio.sleep(0)


def within(transport: Transport, limit: int) -> bool:
    return limit <= transport.unread_bytes <= limit + 2 * len(PIECE) + 100


def test_clients_may_leave_much_unread_while_there_is_enough_to_lend() -> None:
    async def inside() -> None:
        connections = server()
        first, second, third = (connected(connections, endless) for _ in range(3))
        await settled()
        assert within(first, LIMITS.lent_unread_bytes)
        assert within(second, LIMITS.lent_unread_bytes)
        assert within(third, LIMITS.unread_bytes)
        # The stream of a client that has read goes on; what it gave back is there for another.
        first.read()
        third.read()
        await settled()
        assert within(first, LIMITS.unread_bytes) != within(third, LIMITS.unread_bytes)
        second.protocol.connection_lost(None)
        fourth = connected(connections, endless)
        await settled()
        assert within(fourth, LIMITS.lent_unread_bytes)

    asyncio.run(inside())


def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    async def inside() -> None:
        for app in (endless, short):
            transport = connected(server(), app)
            await settled()
            look = transport.protocol.look
            for now_s in (100, 100.9):
                look(now_s, 1)
                assert not transport.aborted
            transport.read(10)
            for now_s in (101, 101.9):
                look(now_s, 1)
                assert not transport.aborted, "it reads, if slowly"
            look(102, 1)
            assert transport.aborted

    asyncio.run(inside())


def test_a_client_that_has_read_all_is_left_its_time() -> None:
    async def inside() -> None:
        transport = connected(server(), short)
        await settled()
        transport.read()
        for second in range(10):
            transport.protocol.look(second, 1)
        assert not transport.aborted
        transport.protocol.look(math.inf, 1)
        assert transport.closed

    asyncio.run(inside())
