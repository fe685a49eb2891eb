"""Answers that are not relayed: JSON and errors, with the headers that every answer has."""

import random
import re

import orjson

from orchestrator.gateway.asgi import Send
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.limits import Limiter

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(header: bytes | None) -> str:
    """The client's own when it is fit for logs and headers, else a new one."""
    given = header.decode("latin-1") if header else ""
    # Nothing relies on an id being hard to guess, and the system's randomness costs a call.
    return given if REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


class Replies:
    def __init__(self, exchange: Exchange, limiter: Limiter) -> None:
        self._exchange = exchange
        self._limiter = limiter

    async def json(
        self, value: object, send: Send, request_id: str, caller: Caller | None = None
    ) -> None:
        body, extra = orjson.dumps(value), self._limit_headers(caller)
        await self.send(200, b"application/json", body, send, request_id, extra)

    async def error(
        self,
        error: ApiError,
        path: str,
        send: Send,
        request_id: str,
        caller: Caller | None = None,
    ) -> None:
        dialect = ENDPOINTS.get(path)
        body = dialect.error_body(error) if dialect else error.body()
        extra = [(k.encode(), v.encode()) for k, v in error.headers.items()]
        extra += self._limit_headers(caller)
        await self.send(error.status, b"application/json", body, send, request_id, extra)

    def _limit_headers(self, caller: Caller | None) -> list[tuple[bytes, bytes]]:
        workload = caller and self._exchange.catalogue.workloads.get(caller.workload)
        return self._limiter.headers(caller, workload.limits) if caller and workload else []

    async def send(
        self,
        status: int,
        content_type: bytes,
        body: bytes,
        send: Send,
        request_id: str,
        extra: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"x-orchestrator-policy-version", self._exchange.catalogue.version.encode()),
            *(extra or []),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
