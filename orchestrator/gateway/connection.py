"""One client's connection: HTTP/1.1, one request after the other, in front of an ASGI application.

Nothing here trusts the client: what is ambiguous is refused and the connection closed, and all that
a client sends or leaves unread has a limit in size and in time.
"""

import asyncio
import math
import select
import time
from typing import Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from orchestrator.gateway.asgi import App, Transaction, answer
from orchestrator.gateway.connections import Connections
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.framing import check
from orchestrator.gateway.replies import request_id_of

ASGI = {"version": "3.0", "spec_version": "2.3"}
OVERHEAD_PER_BODY_BYTE = 8
"""What chunks may cost beside their data: those of one byte cost five."""


class ClientConnection(asyncio.Protocol):
    """Made by uvicorn's server, which asks it to shut down and waits until it is gone."""

    transport: asyncio.Transport

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._connections = connections
        self._limits = connections.limits
        self._app = cast(App, config.loaded_app)
        self._server = server_state
        self._parser = httptools.HttpRequestParser(self)
        self._open: Transaction | None = None
        self._refusal: ApiError | None = None
        """Why a callback stopped the parser."""
        self._deaf = False
        """What still comes is dropped."""
        self._due_s = math.inf
        """When the client must have done what it is waited for."""
        self._served = False
        self._head_bytes = 0
        self._overhead_bytes = 0
        """Of a body, what is not its data."""
        self._upgrading = False
        self._is_reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._borrowed = False
        self._unread_bytes = 0
        self._unread_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._limits.unread_bytes)
        self._server.connections.add(self)  # type: ignore[arg-type]
        self._due_s = time.monotonic() + self._limits.head_s
        if not self._connections.add(self):
            self._deaf = True
            self._answer(_too_many())
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._connections.remove(self)
        self._deaf = True
        self.resume_writing()
        if self._open is not None:
            self._open.disconnect()
            self._open = None
        del self._parser  # it holds this connection

    def eof_received(self) -> None:
        """Who sends no more is gone, as proxies see it too."""
        if self._open is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        if self._open is not None:
            self._open.is_last = True
        elif not self._deaf:
            self.transport.close()

    # What the client sends.

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._open is not None:
            self._overhead_bytes += len(data)
        else:
            if not self._head_bytes:
                self._due_s = time.monotonic() + self._limits.head_s
            self._head_bytes += len(data)
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._open is not None and not self._open.more_body:
                # Only of the next request, which its client may send again.
                self._deaf = self._open.is_last = True
            else:
                self._refuse(self._refusal or _not_http())
            return
        if self._open is None:
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(_head_too_large())
        elif self._overhead_bytes > self._limits.head_bytes:
            self._refuse(_not_http())

    def on_message_begin(self) -> None:
        if self._upgrading:
            return
        if self._open is not None:
            self._stop(_not_http())
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_bytes = 0

    def on_url(self, url: bytes) -> None:
        if not self._upgrading:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer means nothing here.
        if self._open is None and not self._upgrading:
            if len(self._headers) >= self._limits.headers:
                self._stop(_head_too_large())
            self._headers.append((name.lower(), value))
            self._headers_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        if not self._upgrading:
            self._method = parser.get_method().decode("ascii")
            self._version = parser.get_http_version()
            if len(self._target) + self._headers_bytes > self._limits.head_bytes:
                self._stop(_head_too_large())
            try:
                check(self._version, self._target, self._headers)
            except ApiError as refusal:
                self._stop(refusal)
            if parser.should_upgrade():
                self._upgrading = True
                return
        self._begin(self._version == "1.1" and parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if self._open is not None:
            self._overhead_bytes -= (1 + OVERHEAD_PER_BODY_BYTE) * len(body)
            self._open.take(body)

    def on_message_complete(self) -> None:
        if self._open is not None:
            self._open.take_end()

    def _begin(self, keep_alive: bool) -> None:
        self._connections.busy(self)
        self._due_s = math.inf
        self._head_bytes = self._overhead_bytes = 0
        raw_path, _, query = self._target.partition(b"?")
        path = raw_path.decode("ascii")
        scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": self._version,
            "scheme": "http",
            "method": self._method,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self._headers,
        }
        expects = self._version == "1.1" and (b"expect", b"100-continue") in self._headers
        self._open = Transaction(self, scope, not keep_alive, expects)
        tasks = self._server.tasks
        tasks.add(self._loop.create_task(self._open.run(self._app, tasks.discard)))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Takes the request as one of HTTP/1.1, as a server may: some clients ask for HTTP/2 with
        every request. The parser has left the body out, so another is told of its length."""
        self._parser = httptools.HttpRequestParser(self)
        framing = b"".join(
            b"%b: %b\r\n" % header
            for header in self._headers
            if header[0] in (b"content-length", b"transfer-encoding")
        )
        self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\n")
        self._upgrading = False
        self._overhead_bytes += len(rest)
        if rest:
            self._parser.feed_data(rest)

    def _stop(self, refusal: ApiError) -> NoReturn:
        """Makes the parser stop within a callback."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, error: ApiError) -> None:
        transaction, self._open = self._open, None
        if transaction is not None:
            transaction.disconnect()
        if transaction is not None and transaction.started:
            self.transport.abort()
        else:
            self._answer(error)
            self._linger()

    def _answer(self, error: ApiError) -> None:
        self._connections.refused(error.status)
        self.transport.write(answer(error, request_id_of(None)))

    def _linger(self) -> None:
        """Closing at once, with something unread, would make the client lose its answer too."""
        self._deaf = True
        self._due_s = time.monotonic() + self._limits.linger_s
        self._connections.idle(self)
        self.resume_reading()
        self.transport.write_eof()

    # For the transaction.

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def room(self) -> None:
        while not self._writable.is_set():
            lent = self._limits.lent_unread_bytes if self._borrowed else 0
            if self.transport.get_write_buffer_size() < lent:
                return
            await self._writable.wait()

    def pause_writing(self) -> None:
        self._borrowed = self._connections.borrow()
        self._writable.clear()

    def resume_writing(self) -> None:
        if self._borrowed:
            self._borrowed = False
            self._connections.give_back()
        self._writable.set()

    def pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self.transport.resume_reading()

    def answered(self, transaction: Transaction) -> None:
        self._open = None
        self._served = True
        if self._deaf or transaction.more_body:
            self._linger()
        elif transaction.is_last:
            self._deaf = True
            self.transport.close()
        else:
            self._due_s = time.monotonic() + self._limits.keep_alive_s
            self._connections.idle(self)
            # A body may have been long, and its end come all the same.
            self.resume_reading()

    def abort(self) -> None:
        self.transport.abort()

    # For the connections of the server.

    def evict(self) -> None:
        self.transport.abort()

    def is_silent(self) -> bool:
        if self._served:
            return False
        readable = select.poll()
        try:
            readable.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
            return not readable.poll(0)
        except (OSError, ValueError, AttributeError):
            return True

    def look(self, now_s: float, unread_s: float) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        if not unread_bytes or unread_bytes != self._unread_bytes:
            self._unread_bytes, self._unread_since_s = unread_bytes, now_s
        elif now_s - self._unread_since_s >= unread_s:
            # Closing would wait for the client to read the rest.
            self.transport.abort()
            return
        if now_s < self._due_s or unread_bytes or self.transport.is_closing():
            return
        if self._deaf:
            self.transport.abort()
        elif self._head_bytes or not self._served:
            self._refuse(
                ApiError(408, "header_timeout", "The request's headers did not arrive in time.")
            )
        else:
            self.transport.close()


def _not_http() -> ApiError:
    return ApiError(400, "invalid_http", "The request is not valid HTTP/1.1.")


def _head_too_large() -> ApiError:
    return ApiError(431, "headers_too_large", "The request's headers are too large.")


def _too_many() -> ApiError:
    return ApiError(
        429,
        "too_many_connections",
        "The gateway is at its limit of open connections. Try again shortly.",
        "rate_limit_error",
        headers={"retry-after": "1"},
    )
