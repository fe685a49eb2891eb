"""A request and its answer, as the ASGI application sees them and as they go over a connection."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol

from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.safe_log import without_text

Message = MutableMapping[str, Any]
AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

log = logging.getLogger("orchestrator.gateway")

HELD_BODY_BYTES = 64 * 1024
"""Of a request, before its client must wait for the application."""
WHEN_GONE = "orchestrator.when_gone"
WHOLE_BODY = "orchestrator.whole_body"
"""Extensions of the scope: the transaction's methods of these names."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NOT_IN_A_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Channel(Protocol):
    """What a transaction needs of its connection."""

    def write(self, data: bytes) -> None: ...

    async def room(self) -> None:
        """Waits until more may be written."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def answered(self, transaction: "Transaction") -> None:
        """The answer is whole."""

    def abort(self) -> None: ...


class Transaction:
    def __init__(
        self, channel: Channel, scope: AsgiScope, is_last: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        self.is_last = is_last
        """The connection ends with this answer."""
        self.more_body = True
        """Of the request."""
        self.started = self.complete = False
        """The answer."""
        self._channel = channel
        self._expects_continue = expects_continue
        self._body: list[bytes] = []
        self._held_bytes = 0
        self._was_given = self._all_given = False
        self._disconnected = False
        self._when_gone: Callable[[], object] | None = None
        scope["extensions"] = {WHEN_GONE: self.when_gone, WHOLE_BODY: self.whole_body}
        self._woken: asyncio.Event | None = None
        """None until somebody waits for it."""
        self._head = b""
        """Of the answer, until the first of its body is there."""
        self._without_body = scope["method"] == "HEAD"
        self._chunked = False
        self._left: int | None = None
        """Bytes that the answer's length leaves to be sent."""

    # From the connection.

    def take(self, body: bytes) -> None:
        self._body.append(body)
        self._held_bytes += len(body)
        if self._held_bytes > HELD_BODY_BYTES:
            self._channel.pause_reading()
        self._wake()

    def take_end(self) -> None:
        self.more_body = False
        self._wake()

    def disconnect(self) -> None:
        self._disconnected = True
        self._wake()
        if self._when_gone is not None:
            self._when_gone()

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    # For the application.

    async def run(self, app: App, ended: Callable[[asyncio.Task[None]], object]) -> None:
        """`ended` is told the task that runs it, at its end."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            log.error("the application failed: %s", without_text(error))
        finally:
            if not self.complete and not self._disconnected:
                # What was sent must not pass for a whole answer.
                self._channel.abort()
            task = asyncio.current_task()
            assert task is not None
            ended(task)

    def when_gone(self, callback: Callable[[], object] | None) -> None:
        """Called at once when the client goes away: less work than a task that waits for
        `receive` to say so. None: no more."""
        self._when_gone = callback
        if callback is not None:
            if self._disconnected:
                callback()
            elif not self.complete:
                # Else its going would not be noticed.
                self._channel.resume_reading()

    def whole_body(self) -> bytes | None:
        """Of the request, where all of it is there and none was given yet: then `receive` has
        nothing to wait for, and is not needed."""
        if self.more_body or self._was_given or self._disconnected:
            return None
        return self._given()

    def _given(self) -> bytes:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._held_bytes = 0
        self._was_given = True
        self._all_given = not self.more_body
        return body

    async def receive(self) -> Message:
        while not self._disconnected and not self.complete:
            if not self._all_given and (self._body or not self.more_body):
                return {"type": "http.request", "body": self._given(), "more_body": self.more_body}
            if self._expects_continue:
                self._expects_continue = False
                self._channel.write(CONTINUE)
            self._channel.resume_reading()
            if self._woken is None:
                self._woken = asyncio.Event()
            self._woken.clear()
            await self._woken.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self._channel.room()
        if self._disconnected:
            return
        if message["type"] == "http.response.start" and not self.started:
            self._start(message)
        elif message["type"] == "http.response.body" and self.started and not self.complete:
            self._send(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"'{message['type']}' does not come now")

    def _start(self, message: Message) -> None:
        self.started = True
        self._expects_continue = False
        parts = [_STATUS[message["status"]]]
        headers = message["headers"]
        if _NOT_IN_A_HEADER.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a header of the answer has a control character")
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
            parts += [name, b": ", value, b"\r\n"]
        if self._left is None and self.scope["http_version"] == "1.0":
            self.is_last = True
        elif self._left is None:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        # A client in the middle of its body is not waited for.
        self.is_last |= self.more_body
        if self.is_last:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)

    def _send(self, body: bytes, more: bool) -> None:
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not of the length that its head says")
        if self._without_body:
            body = b""
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        if self._head:
            body, self._head = self._head + body, b""
        self._channel.write(body)
        if not more:
            self.complete = True
            self._wake()
            self._channel.answered(self)


def answer(error: ApiError, request_id: str) -> bytes:
    """Of a connection that ends with it."""
    body = error.body()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        **error.headers,
        "connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return _STATUS[error.status] + head.encode() + b"\r\n" + body


@contextmanager
def while_connected(scope: AsgiScope, receive: Receive) -> Iterator[None]:
    """Cancels what it surrounds when the client goes away. Raises ClientGone then."""
    surrounded = asyncio.current_task()
    assert surrounded is not None
    begun = gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        if begun:
            surrounded.cancel()

    when_gone = scope.get("extensions", {}).get(WHEN_GONE)
    watching = None if when_gone else asyncio.create_task(_watch(receive, leave))
    try:
        if when_gone:
            when_gone(leave)
        if gone:
            raise ClientGone
        begun = True
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        surrounded.uncancel()
        raise ClientGone from None
    finally:
        if when_gone:
            when_gone(None)
        else:
            assert watching is not None
            watching.cancel()


async def _watch(receive: Receive, leave: Callable[[], None]) -> None:
    """For servers that tell it in no other way."""
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
