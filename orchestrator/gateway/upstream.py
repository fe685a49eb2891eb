"""The one module that sends content anywhere, and only for a grant."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from orchestrator.config.spec import Cluster, Timeouts
from orchestrator.gateway.http1 import ConnectionPool, HttpFailed, HttpResponse, Origin
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.grant import Grant
from orchestrator.signals import prefixes

MAX_BODY_BYTES = 64 * 1024 * 1024
"""An answer that does not come as a stream is held whole; a larger one is a failed attempt."""


class UpstreamFailed(Exception):
    """The attempt gave no answer that could be passed on. `reason` is one of a fixed few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpstreamResponse:
    """An upstream's answer whose body is still to be read."""

    __slots__ = ("_response", "status")

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self.status = response.status

    async def chunk(self, timeout_s: float) -> bytes:
        """The next bytes, empty at the end. Raises UpstreamFailed on a cut or a stall."""
        try:
            return await self._response.chunk(timeout_s)
        except HttpFailed as failure:
            raise UpstreamFailed(failure.reason) from None

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

    def interrupt(self, reason: str) -> None:
        """Whoever reads it finds that the upstream failed, for this reason."""
        self._response.interrupt(reason)

    def close(self) -> None:
        """Cancels upstream what was not read to its end; else the connection is kept."""
        self._response.close()


@dataclass(frozen=True, slots=True)
class _Target:
    """What all requests to one endpoint share."""

    candidate: Candidate
    pool: ConnectionPool
    base_path: str
    headers: bytes
    chooses_replica: bool
    """Whether the front has several replicas to choose from, by what the prompt begins with."""


class Upstreams:
    """Connections to endpoints, in pools of their own for each zone and origin."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._pools: dict[tuple[str, Origin], ConnectionPool] = {}
        self._targets: dict[str, _Target] = {}
        """By endpoint."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in self._pools.values():
            pool.close()

    async def send(
        self,
        grant: Grant,
        path: str,
        body: bytes,
        request_id: str,
        timeout_s: float,
        traceparent: str = "",
        sent: Callable[[], None] = lambda: None,
    ) -> UpstreamResponse:
        """POST to the granted endpoint and nowhere else: a redirect is an answer like any other.
        `sent` is called when the request is written.

        The answer has to be closed. Raises UpstreamFailed when no headers come in time.
        """
        target = self._target(grant.candidate)
        head = (
            f"POST {target.base_path}{path} HTTP/1.1\r\nx-request-id: {request_id}\r\n"
            f"content-length: {len(body)}\r\n"
        )
        if target.chooses_replica and (beginnings := prefixes.encode(body)):
            head += f"{prefixes.HEADER}: {beginnings}\r\n"
        if traceparent:
            head += f"traceparent: {traceparent}\r\n"
        response = HttpResponse(target.pool, head.encode("ascii") + target.headers, body)
        try:
            return UpstreamResponse(await response.start(timeout_s, sent))
        except BaseException as error:
            response.close()
            if isinstance(error, HttpFailed):
                raise UpstreamFailed(error.reason) from None
            raise

    def withheld(self, candidate: Candidate) -> tuple[str, ...]:
        """What an endpoint knows of us that its words to a client must not tell."""
        parts = urlsplit(candidate.url)
        return tuple(filter(None, (_token(candidate.cluster), parts.netloc, parts.hostname)))

    def _target(self, candidate: Candidate) -> _Target:
        target = self._targets.get(candidate.endpoint)
        # Other rules may have put it elsewhere.
        if target is None or target.candidate is not candidate:
            target = self._targets[candidate.endpoint] = self._made(candidate)
        return target

    def _made(self, candidate: Candidate) -> _Target:
        cluster = candidate.cluster
        origin = Origin.of(candidate.url, cluster.ca_file)
        pool = self._pools.get((candidate.zone.name, origin))
        if pool is None:
            pool = ConnectionPool(origin, self._timeouts.connect_s)
            self._pools[candidate.zone.name, origin] = pool
        headers = f"host: {origin.host_header}\r\ncontent-type: application/json\r\n"
        if token := _token(cluster):
            headers += f"authorization: Bearer {token}\r\n"
        return _Target(
            candidate,
            pool,
            urlsplit(candidate.url).path,
            f"{headers}\r\n".encode("latin-1"),
            cluster.kind != "openai" and candidate.pool.max_replicas > 1,
        )


def _token(cluster: Cluster) -> str:
    """For the endpoint, empty where it wants none."""
    if cluster.kind != "openai" or not cluster.token_env:
        return ""
    return os.environ.get(cluster.token_env, "").strip()
