"""HTTP/1.1 from the client's side, with the least work per chunk: connections that are kept, and
one answer at a time on each.

llhttp parses, strictly. What it does not see is refused here: heads without end, bytes after an
answer. Nothing is decompressed, no redirect is followed, no cookie kept.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httptools

MAX_HEAD_BYTES = 64 * 1024
HIGH_WATER_BYTES = 256 * 1024
"""More than this unread, and the peer has to wait."""
IDLE_S = 30.0
"""Below the usual servers' own limits, so that few connections end in the moment of their reuse."""


class HttpFailed(Exception):
    """`reason`: `unreachable`, `timeout`, `protocol`, `cut` or `stalled`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go, and what is trusted there."""

    host: str
    port: int
    secure: bool
    host_header: str
    ca_file: str | None

    @classmethod
    def of(cls, url: str, ca_file: str | None = None) -> Self:
        """`ca_file`: of the authorities to trust, instead of the system's."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return cls(parts.hostname or "", port, secure, parts.netloc, ca_file)

    def context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises OSError for files that cannot be read."""
        if not self.secure:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class UpstreamConnection(asyncio.Protocol):
    """One connection, and the answer that is being read from it."""

    def __init__(self, pool: "ConnectionPool", loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport
        self._chunks: list[bytes] = []
        # What the parser calls with every part of a body, with nothing in between.
        self.on_body = self._chunks.append
        self._parser: Any = httptools.HttpResponseParser(self)
        self._buffered_bytes = 0
        self._head_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = self._due_s = 0.0
        """When the timer rings, and when waiting is over: for an answer, or unused for a request.
        What is due later than before leaves the timer alone, until it has rung."""
        self._paused = False
        self._busy = False
        self.closed = False
        self.failure = ""
        """Why nothing more comes, when the answer is not whole."""
        self.status = 0
        """0 until the head is there."""
        self.whole = False
        self.used = False
        """Whether it has carried an answer before."""

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by what it does, and not by its class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._busy and not self.whole:
            self._finish_by_closing(exc)
        self._wake()

    def _finish_by_closing(self, exc: Exception | None) -> None:
        # Without a length, the end of the connection is the end of the answer; an answer that was
        # announced longer, or in chunks, is cut.
        if exc is None and self.status and self._ends_with_the_connection:
            self.whole = True
        else:
            self.failure = self.failure or "cut"

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.whole:
            # Nobody asked: whatever it is, it is not the answer to the next request.
            self.abort("protocol")
            return
        if not self.status:
            self._head_bytes += len(data)
        self._buffered_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort("protocol")
        if not self.status and self._head_bytes > MAX_HEAD_BYTES:
            self.abort("protocol")
        if self._buffered_bytes > HIGH_WATER_BYTES and not (self._paused or self.failure):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered in (b"content-length", b"transfer-encoding"):
            self._ends_with_the_connection = False
        elif lowered == b"content-encoding" and value.lower() != b"identity":
            self.abort("protocol")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self.failure:
            self.status = status

    def on_message_complete(self) -> None:
        if self.status:
            if self.whole:
                self.abort("protocol")
            self.whole = True
            self._may_stay = self._parser.should_keep_alive()
        else:
            # An interim answer; the parser goes on with the next.
            self._ends_with_the_connection = True

    # What the exchange calls.

    def ask(self, head: bytes, body: bytes) -> None:
        self._buffered_bytes = self._head_bytes = self.status = 0
        self.failure = ""
        self.whole = False
        self._busy = True
        self._ends_with_the_connection = True
        self._may_stay = False
        # One write: the head and a short body travel in one packet.
        self._transport.writelines((head, body))

    async def wait(self, timeout_s: float) -> None:
        """Until something has come, be it a part of a head, or the time is over."""
        self._waiter = waiter = self._loop.create_future()
        self._due_in(timeout_s)
        try:
            await waiter
        finally:
            self._waiter = None

    def now_s(self) -> float:
        return self._loop.time()

    @property
    def has_more(self) -> bool:
        return bool(self._chunks)

    @property
    def is_silent(self) -> bool:
        """Whether not a byte of an answer has come: the peer may not even have been asked."""
        return not self._head_bytes

    def take(self) -> bytes:
        """All that is there."""
        chunks = self._chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return taken

    def done(self) -> None:
        """Keeps the connection for the next request where that can be, or closes it."""
        self._busy = False
        self._chunks.clear()
        self._buffered_bytes = 0
        keep = self.whole and not self.failure and not self.closed
        if keep and self._may_stay and not self._ends_with_the_connection:
            self.used = True
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            self._due_in(IDLE_S)
            self._pool.keep(self)
        else:
            self._pool.forget(self)
            self._transport.abort()

    def abort(self, reason: str) -> None:
        """Whoever reads the answer finds that it failed, for this reason."""
        self.failure = self.failure or reason
        self._transport.abort()
        self._wake()

    def _due_in(self, timeout_s: float) -> None:
        self._due_s = self._loop.time() + timeout_s
        if self._timer is None or self._due_s < self._timer_s:
            self._set_timer(timeout_s)

    def _set_timer(self, timeout_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = self._due_s
        self._timer = self._loop.call_later(timeout_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        left_s = self._due_s - self._loop.time()
        if self._busy and self._waiter is None:
            # Nobody waits: who does next sets it again.
            return
        if left_s > 0:
            self._set_timer(left_s)
        elif self._busy:
            self._wake()
        else:
            self._transport.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ConnectionPool:
    """Connections to one origin."""

    def __init__(self, origin: Origin, connect_s: float) -> None:
        self._origin = origin
        self._connect_s = connect_s
        self._tls: ssl.SSLContext | None = None
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def idle(self) -> UpstreamConnection | None:
        """The one that was used last: the others may grow old and close."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def fresh(self) -> UpstreamConnection:
        """Raises HttpFailed."""
        loop = asyncio.get_running_loop()
        try:
            if self._tls is None:
                self._tls = self._origin.context()
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self, loop),
                    self._origin.host,
                    self._origin.port,
                    ssl=self._tls,
                )
        except (OSError, TimeoutError):
            # An untrusted certificate is one of them.
            raise HttpFailed("unreachable") from None
        self._open.add(connection)
        return connection

    def keep(self, connection: UpstreamConnection) -> None:
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort("cut")


class HttpResponse:
    """An answer whose body is still to be read. Left before its end, it is cancelled."""

    __slots__ = ("_body", "_connection", "_head", "_pool", "status")

    def __init__(self, pool: ConnectionPool, head: bytes, body: bytes) -> None:
        self._pool = pool
        self._head = head
        self._body = body
        self._connection: UpstreamConnection | None = None
        self.status = 0

    async def start(self, timeout_s: float, sent: Callable[[], None] = lambda: None) -> Self:
        """Sends the request and waits for the head of the answer. `sent` is called when it is
        written. Raises HttpFailed."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        connection = self._pool.idle()
        while True:
            if connection is None:
                connection = await self._pool.fresh()
            self._connection = connection
            connection.ask(self._head, self._body)
            sent()
            while not connection.status and not connection.failure:
                left_s = until_s - loop.time()
                if left_s <= 0:
                    raise HttpFailed("timeout")
                await connection.wait(left_s)
            if connection.status:
                self.status = connection.status
                return self
            if not (connection.used and connection.failure == "cut" and connection.is_silent):
                raise HttpFailed(
                    "unreachable" if connection.failure == "cut" else connection.failure
                )
            # Closed in the moment of its reuse: this says nothing of the endpoint.
            connection = None

    async def chunk(self, timeout_s: float) -> bytes:
        """The next bytes of the body, empty at its end. Raises HttpFailed: `cut`, `stalled`,
        `protocol`."""
        connection = self._connection
        assert connection is not None, "an answer is started first"
        if timeout_s <= 0:
            # Bytes that are there already would come all the same.
            raise HttpFailed("stalled")
        until_s = 0.0
        while not connection.has_more:
            if connection.whole:
                return b""
            if connection.failure:
                raise HttpFailed(connection.failure)
            now_s = connection.now_s()
            until_s = until_s or now_s + timeout_s
            if now_s >= until_s:
                raise HttpFailed("stalled")
            await connection.wait(until_s - now_s)
        return connection.take()

    def interrupt(self, reason: str) -> None:
        """Whoever reads it finds that it failed, for this reason."""
        if self._connection is not None:
            self._connection.abort(reason)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.done()
