"""Stands between a client and an API server, over plain HTTP, and answers in its place."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import urllib3

HOP_BY_HOP = ("transfer-encoding", "connection", "content-length", "host", "accept-encoding")


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of, or after, its being passed on."""

    status: int | None = None
    """Answered with it; None: the connection is cut without an answer."""
    passed_on: bool = False
    """The server carries the request out first, and its answer is lost."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"kind": "Status", "message": "injected"}'
    hang_s: float = 0
    """How long nothing is said before."""


Decide = Callable[[str, str], Fault | None]
"""From method and path with query."""


class FaultServer:
    """Asks `decide` about every request. `requests` are those that came."""

    def __init__(self, upstream: urllib3.PoolManager, url: str, headers: dict[str, str]) -> None:
        self.upstream, self.upstream_url, self.headers = upstream, url, headers
        self.decide: Decide = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.streams: set[socket.socket] = set()
        self.freed = threading.Event()
        """Ends what hangs."""
        self.spoiled = threading.Event()
        """A fault has begun, and what it passes on has been carried out."""
        outer = self

        class Handler(_Handler):
            faults = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.freed.set()
        self._server.shutdown()
        self._server.server_close()
        self.cut_watches()

    def cut_watches(self) -> None:
        for stream in list(self.streams):
            try:
                stream.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def count(self, method: str, part: str = "") -> int:
        return sum(m == method and part in path for m, path in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: FaultServer

    def _answer(self) -> None:
        faults = self.faults
        faults.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = faults.decide(self.command, self.path)
        if fault is not None and not fault.passed_on:
            self._spoil(fault)
            return
        sent = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        response = faults.upstream.request(
            self.command,
            faults.upstream_url + self.path,
            body=body or None,
            headers=sent | faults.headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=False,
        )
        if fault is not None:
            response.read()
            self._spoil(fault)
            return
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if "watch=true" in self.path:
            faults.streams.add(self.connection)
        try:
            for chunk in response.stream(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            faults.streams.discard(self.connection)
            response.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _spoil(self, fault: Fault) -> None:
        self.faults.spoiled.set()
        if fault.hang_s:
            self.faults.freed.wait(fault.hang_s)
        self.close_connection = True
        if fault.status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(fault.status)
        for name, value in fault.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(fault.body)))
        self.end_headers()
        self.wfile.write(fault.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
