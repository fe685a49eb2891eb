"""The ASGI application: one OpenAI-compatible endpoint."""

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from orchestrator.config.spec import Gateway as Spec
from orchestrator.gateway.access import authenticate
from orchestrator.gateway.batches import Asked, BatchApi, Content
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.records import Records
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import Upstreams
from orchestrator.ledger.audit import AuditLog
from orchestrator.ledger.usage import UsageLedger
from orchestrator.sessions.ratchet import Ratchet
from orchestrator.signals.report import AuditHead

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("orchestrator.gateway")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
BODY_TIMEOUT_S = 30
SESSION_KEY = "ORCHESTRATOR_SESSION_KEY"
"""Environment variable with the secret that conversations are recognized by. Whoever changes it
forgets which conversations were raised."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths for those who watch the gateway; they are no requests."""


class Gateway:
    """Raises ConfigurationError without whole rules, SessionsUnavailable and OSError when there is
    no place to remember and to record: then it must not serve."""

    def __init__(self, state: Path) -> None:
        """`state` is the directory with the policy in force, and for all that is put on record."""
        self._telemetry = Telemetry()
        self._exchange = Exchange(state, self._telemetry, self._audit_head)
        self._ratchet = Ratchet(state / "sessions.sqlite", _session_key())
        self._sensitivity = Sensitivity(self._ratchet)
        self._intake = Intake(self._exchange, self._sensitivity)
        self._batches = BatchApi(state / "batch", self._exchange, self._intake, self._telemetry)
        self._ledger = UsageLedger(state / "ledger.sqlite")
        self._audit = AuditLog(state / "audit", self._exchange.gateway_id)
        self._records = Records(self._ledger, self._audit)
        self._open = 0
        self._relay: Relay | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    def _audit_head(self) -> AuditHead | None:
        return self._records.audit_head()

    @property
    def spec(self) -> Spec:
        return self._exchange.catalogue.configuration.gateway

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Opens the ledger and runs the exchange with the controller until the server stops."""
        async with AsyncExitStack() as running:
            await receive()
            running.callback(self._ratchet.close)
            running.enter_context(self._ledger)
            running.enter_context(self._audit)
            upstreams = await running.enter_async_context(Upstreams(self.spec.timeouts))
            running.push_async_callback(self._exchange.say_goodbye)
            exchange = asyncio.create_task(self._exchange.run())
            running.callback(exchange.cancel)
            self._relay = Relay(
                self._exchange, upstreams, self._sensitivity, self._records, self._telemetry
            )
            await running.enter_async_context(self._batches.running(self._relay))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        request_id = request_id_of(headers.get(b"x-request-id"))
        caller: Caller | None = None
        call: Call | None = None
        status = 499
        try:
            if path in ENDPOINTS:
                _allow(scope, "POST")
                started_s = time.monotonic()
                caller = self._authenticate(headers)
                with self._place():
                    raw = await _body(
                        headers.get(b"content-length"), receive, self.spec.max_body_bytes
                    )
                    call = await self._intake.read(
                        request_id, caller, path, scope["headers"], raw, send, started_s
                    )
                    assert self._relay is not None, "the server runs the lifespan first"
                    with _while_connected(receive):
                        await self._relay.run(call)
            elif self._batches.serves(path):
                caller = self._authenticate(headers)
                with self._place():
                    await self._batch(caller, scope, receive, send, request_id)
            else:
                await self._local(scope, headers, send, request_id)
        except ApiError as error:
            status = error.status
            await self._error(error, path, send, request_id)
        except ClientGone:
            pass
        except Exception:
            # What went wrong is for the log; the client learns only that it was us.
            log.exception("request %s failed", request_id)
            status = 500
            if call is not None and call.status:
                raise
            ours = ApiError(500, "internal_error", "The gateway failed.", "server_error")
            await self._error(ours, path, send, request_id)
        else:
            status = 200
        finally:
            if path not in PROBES:
                self._count(caller, call, status)

    async def _batch(
        self, caller: Caller, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> None:
        declared = dict(scope["headers"]).get(b"content-length")
        asked = Asked(
            caller,
            scope["method"],
            scope["path"],
            scope["query_string"],
            scope["headers"],
            receive,
            partial(_body, declared, receive, self.spec.max_body_bytes),
        )
        answer = await self._batches.answer(asked)
        if isinstance(answer, Content):
            about = [(b"x-request-id", request_id.encode())]
            await self._batches.send_content(answer, receive, send, about)
        else:
            await self._json(answer, send, request_id)

    def _authenticate(self, headers: dict[bytes, bytes]) -> Caller:
        exchange = self._exchange
        authorization = headers.get(b"authorization")
        if authorization is None and b"x-api-key" in headers:
            # Where Anthropic's clients put it.
            authorization = b"Bearer " + headers[b"x-api-key"]
        return authenticate(exchange.keys, exchange.catalogue.workloads, authorization)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the requests that may be open, from before its body. Raises ApiError 429."""
        if self._open >= self.spec.max_concurrent_requests:
            raise ApiError(
                429,
                "too_many_requests",
                "The gateway is at its limit of open requests.",
                "rate_limit_error",
                headers={"retry-after": "1"},
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _local(
        self, scope: Scope, headers: dict[bytes, bytes], send: Send, request_id: str
    ) -> None:
        path = scope["path"]
        if path not in PROBES and path != "/v1/models" and not path.startswith("/v1/models/"):
            raise ApiError(404, "not_found", "There is nothing at this path.")
        _allow(scope, "GET")
        if path == "/healthz":
            await self._json({"status": "alive"}, send, request_id)
        elif path == "/readyz":
            await self._ready(send, request_id)
        elif path == "/metrics":
            body = self._telemetry.exposition(self._exchange.snapshot.version, self._records.lost)
            await self._answer(200, b"text/plain; version=0.0.4", body, send, request_id)
        else:
            caller = self._authenticate(headers)
            await self._models(caller.workload, path, send, request_id)

    async def _ready(self, send: Send, request_id: str) -> None:
        """Ready when some endpoint is: a gateway in front of nothing should get no traffic."""
        if not any(e.ready_replicas for e in self._exchange.snapshot.endpoints.values()):
            raise ApiError(503, "not_ready", "No replica is ready yet.", "service_unavailable")
        await self._json({"status": "ready"}, send, request_id)

    async def _models(self, workload: str, path: str, send: Send, request_id: str) -> None:
        cards = [
            {"id": name, "object": "model", "created": 0, "owned_by": "orchestrator"}
            for name in self._exchange.catalogue.workloads[workload].models
        ]
        name = path.removeprefix("/v1/models").strip("/")
        if not name:
            await self._json({"object": "list", "data": cards}, send, request_id)
            return
        for card in cards:
            if card["id"] == name:
                await self._json(card, send, request_id)
                return
        raise ApiError(404, "model_not_found", "This key has no model of that name.", param="model")

    async def _json(self, value: object, send: Send, request_id: str) -> None:
        await self._answer(200, b"application/json", orjson.dumps(value), send, request_id)

    async def _error(self, error: ApiError, path: str, send: Send, request_id: str) -> None:
        dialect = ENDPOINTS.get(path)
        body = dialect.error_body(error) if dialect else error.body()
        extra = [(k.encode(), v.encode()) for k, v in error.headers.items()]
        await self._answer(error.status, b"application/json", body, send, request_id, extra)

    async def _answer(
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

    def _count(self, caller: Caller | None, call: Call | None, status: int) -> None:
        """With what was known of the request when it ended."""
        workload = caller.workload if caller else ""
        if call is None:
            self._telemetry.answered(workload, "", "", "", status)
            return
        # The model is the client's word until the catalogue knows it.
        known = call.request.model in self._exchange.catalogue.by_model
        model = call.request.model if known else "unknown"
        self._telemetry.answered(workload, model, call.zone, call.pool, status)


def _session_key() -> bytes:
    key = os.environ.get(SESSION_KEY, "")
    if len(key) < 16:
        raise OSError(f"set {SESSION_KEY} to a secret of 16 characters at least")
    return key.encode()


def request_id_of(header: bytes | None) -> str:
    """The client's own when it is fit for logs and headers, else a new one."""
    given = header.decode("latin-1") if header else ""
    # Nothing relies on an id being hard to guess, and the system's randomness costs a call.
    return given if REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise ApiError(405, "method_not_allowed", f"Use {method} here.", headers={"allow": method})


async def _body(declared: bytes | None, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises ApiError 413 past the limit, 408 when it does not come."""
    too_large = ApiError(413, "body_too_large", f"The body may have {limit} bytes at most.")
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise too_large
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(408, "body_timeout", "The body did not arrive in time.") from None


@contextmanager
def _while_connected(receive: Receive) -> Iterator[None]:
    """Cancels what it surrounds when the client goes away. Raises ClientGone then."""
    surrounded = asyncio.current_task()
    assert surrounded is not None
    ended = gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        if not ended:
            gone = True
            surrounded.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        surrounded.uncancel()
        raise ClientGone from None
    finally:
        ended = True
        watching.cancel()
