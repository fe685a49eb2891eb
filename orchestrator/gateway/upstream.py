"""The one module that opens connections carrying content, and only for a grant."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp

from orchestrator.config.spec import Timeouts
from orchestrator.policy.grant import Grant

MAX_BODY_BYTES = 64 * 1024 * 1024
"""An answer that does not come as a stream is held whole; a larger one is a failed attempt."""


class UpstreamFailed(Exception):
    """The attempt gave no answer that could be passed on. `reason` is one of a fixed few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Response:
    """An upstream's answer whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    async def chunk(self, timeout_s: float) -> bytes:
        """The next bytes, empty at the end. Raises UpstreamFailed on a cut or a stall."""
        if timeout_s <= 0:
            # Bytes that are there already would come all the same.
            raise UpstreamFailed("stalled")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._response.content.readany()
        except TimeoutError:
            raise UpstreamFailed("stalled") from None
        except (aiohttp.ClientError, OSError):
            raise UpstreamFailed("cut") from None

    async def body(self, timeout_s: float) -> bytes:
        """All of it. Raises UpstreamFailed on a cut, a stall, or more than may be held."""
        until_s = time.monotonic() + timeout_s
        parts: list[bytes] = []
        size = 0
        while part := await self.chunk(until_s - time.monotonic()):
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise UpstreamFailed("too_large")
            parts.append(part)
        return b"".join(parts)


class Upstreams:
    """Connection pools, one per zone."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    @asynccontextmanager
    async def send(
        self, grant: Grant, path: str, body: bytes, request_id: str, timeout_s: float
    ) -> AsyncIterator[Response]:
        """POST to the granted endpoint and nowhere else: a redirect is an answer like any other.

        Leaving the context closes an unfinished answer, which cancels it upstream. Raises
        UpstreamFailed when no headers come in time.
        """
        candidate = grant.candidate
        headers = {"content-type": "application/json", "x-request-id": request_id}
        token_env = candidate.cluster.token_env
        if candidate.cluster.kind == "openai" and token_env:
            headers["authorization"] = f"Bearer {os.environ.get(token_env, '')}"
        session = self._session(candidate.zone.name)
        try:
            async with asyncio.timeout(timeout_s):
                response = await session.post(
                    candidate.url + path, data=body, headers=headers, allow_redirects=False
                )
        except TimeoutError:
            raise UpstreamFailed("timeout") from None
        except (aiohttp.ClientConnectionError, OSError):
            raise UpstreamFailed("unreachable") from None
        except aiohttp.ClientError:
            raise UpstreamFailed("protocol") from None
        try:
            yield Response(response)
        finally:
            # Does nothing to an answer that was read to its end: that connection is kept.
            response.close()

    def _session(self, zone: str) -> aiohttp.ClientSession:
        if zone not in self._sessions:
            self._sessions[zone] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                # A cookie that one client's answer sets must not travel with another's request.
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
                auto_decompress=False,
                skip_auto_headers=("user-agent", "accept-encoding"),
                read_bufsize=2**18,
            )
        return self._sessions[zone]
