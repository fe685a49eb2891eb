"""The HTTP server of a gateway, on a socket of its own."""

import asyncio
import math
import socket
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.gateway.app import Gateway, request_id_of
from orchestrator.gateway.errors import ApiError

MAX_HEAD_BYTES = 32 * 1024
HEAD_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 75
"""Longer than the usual clients keep an idle connection, so that they close it and not we."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the size of a request's head and on the time that it may take, and
    on the time for which a client may leave what it was sent unread."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_whole()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        gateway = cast(Gateway, self.config.app)
        # Closing would wait for the client to read the rest.
        self._unread_timer = self.loop.call_later(
            gateway.spec.timeouts.between_tokens_s, self.transport.abort
        )

    def resume_writing(self) -> None:
        self._is_read()
        super().resume_writing()

    def _is_read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._expect_head()
            self._head_bytes += len(data)
        super().data_received(data)
        # What of a body came in the same packet was counted too: only a head still open matters.
        if not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "The request's headers are too large.")

    def on_headers_complete(self) -> None:
        self._head_is_whole()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                HEAD_TIMEOUT_S, self._refuse, 408, "The request's headers did not arrive in time."
            )

    def _head_is_whole(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str) -> None:
        self._head_is_whole()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            cast(Gateway, self.config.app).telemetry.refused_early(status)
            code = {408: "header_timeout", 431: "headers_too_large"}[status]
            self.transport.write(_answer(ApiError(status, code, message)))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        cast(Gateway, self.config.app).telemetry.refused_early(400)
        self.transport.write(_answer(ApiError(400, "invalid_http", msg)))
        self.transport.close()


def _answer(error: ApiError) -> bytes:
    reasons = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
    body = error.body()
    head = (
        f"HTTP/1.1 {error.status} {reasons[error.status]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id_of(None)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body


def listen(url: str) -> socket.socket:
    """A bound socket that gateway replicas on one node share. Raises OSError."""
    parts = urlsplit(url)
    listener = socket.socket(socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((parts.hostname, 80 if parts.port is None else parts.port))
    except OSError:
        listener.close()
        raise
    return listener


def server(gateway: Gateway) -> uvicorn.Server:
    """Not yet running: `serve(sockets=[…])` runs it; `should_exit` ends it when its open answers
    are whole, or have had all the time that an answer may take."""
    return uvicorn.Server(
        uvicorn.Config(
            gateway,
            http=Protocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="error",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=4096,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(gateway.spec.timeouts.total_s),
        )
    )
