"""The ASGI application: one OpenAI-compatible endpoint."""

import asyncio
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from orchestrator.config.spec import Gateway as Spec
from orchestrator.gateway import metrics, openapi
from orchestrator.gateway.access import Access
from orchestrator.gateway.access_log import AccessLog
from orchestrator.gateway.asgi import WHEN_GONE
from orchestrator.gateway.batches import Asked, BatchApi, Content
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.deferred import Deferred
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.limits import Limiter
from orchestrator.gateway.observer import CLIENT_GONE, Arrival, Observer
from orchestrator.gateway.records import Records
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.replicas import PUBLISH_S, Replicas
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import Upstreams
from orchestrator.ledger.audit import AuditLog
from orchestrator.ledger.usage import UsageLedger
from orchestrator.safe_log import loop_exception, without_text
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
        self.telemetry = Telemetry()
        self._exchange = Exchange(state, self.telemetry, self._audit_head)
        self._ratchet = Ratchet(state / "sessions.sqlite", _session_key())
        self._sensitivity = Sensitivity(self._ratchet)
        self._access = Access(self._exchange)
        self._limiter = Limiter(state / "limits")
        self._intake = Intake(self._exchange, self._sensitivity)
        self._ledger = UsageLedger(state / "ledger.sqlite")
        self._audit = AuditLog(state / "audit", self._exchange.gateway_id)
        self._records = Records(self._ledger, self._audit)
        self._access_log = AccessLog(state / "logs" / "access.jsonl")
        self._observer = Observer(self._exchange.gateway_id, self.telemetry, self._access_log)
        deferred = Deferred(
            state / "batch", self._exchange, self._intake, self._observer, self.telemetry
        )
        self._batches = BatchApi(self._exchange, deferred)
        self._replicas = Replicas(state / "metrics", self._exchange.gateway_id)
        self._open = 0
        self._watch()
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
            asyncio.get_running_loop().set_exception_handler(loop_exception)
            running.callback(self._ratchet.close)
            running.enter_context(self._ledger)
            running.enter_context(self._audit)
            running.enter_context(self._access_log)
            if self._observer.tracing is not None:
                running.push_async_callback(asyncio.to_thread, self._observer.tracing.close)
            upstreams = await running.enter_async_context(Upstreams(self.spec.timeouts))
            running.push_async_callback(self._exchange.say_goodbye)
            running.enter_context(self._limiter)
            running.callback(self._replicas.leave)
            for loop in (self._exchange.run(), self._access.run(), self._publish_metrics()):
                running.callback(asyncio.create_task(loop).cancel)
            self._relay = Relay(
                self._exchange, upstreams, self._sensitivity, self._records, self.telemetry
            )
            await running.enter_async_context(self._batches.running(self._relay))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        request_id = request_id_of(headers.get(b"x-request-id"))
        arrival: Arrival | None = None
        if path not in PROBES:
            arrival = self._observer.arrived(
                request_id, scope["method"], path, headers.get(b"traceparent")
            )
        caller: Caller | None = None
        call: Call | None = None
        status, code = 499, CLIENT_GONE
        try:
            if arrival is not None and arrival.route.methods:
                _allow(scope, *arrival.route.methods)
            if path in ENDPOINTS:
                caller = await self._access.caller(headers)
                caller.check_endpoint(ENDPOINTS[path].name)
                with self._place():
                    raw = await _body(
                        headers.get(b"content-length"), receive, self.spec.max_body_bytes
                    )
                    assert arrival is not None, "an endpoint is no probe"
                    call = await self._intake.read(
                        request_id, caller, path, scope["headers"], raw, send, arrival.started_s
                    )
                    call.trace = arrival.trace
                    assert self._relay is not None, "the server runs the lifespan first"
                    with self._limiter.admitted(call), _while_connected(scope, receive):
                        await self._relay.run(call)
            elif self._batches.serves(path):
                caller = await self._access.caller(headers)
                with self._place():
                    await self._batch(caller, scope, receive, send, request_id)
            else:
                await self._local(scope, headers, send, request_id)
        except ApiError as error:
            status, code = error.status, error.code
            if call is not None and call.status:
                raise
            await self._error(error, path, send, request_id, caller)
        except ClientGone:
            pass
        except Exception as error:
            # Where it went wrong is for the log; the client learns only that it was us.
            log.error("request %s failed: %s", request_id, without_text(error))
            status, code = 500, "internal_error"
            if call is not None and call.status:
                raise
            ours = ApiError(500, "internal_error", "The gateway failed.", "server_error")
            await self._error(ours, path, send, request_id, caller)
        else:
            status, code = 200, ""
        finally:
            if arrival is not None:
                self._observer.answered(arrival, caller, call, status, code)

    def _watch(self) -> None:
        exchange, watch = self._exchange, self.telemetry.watch
        watch(metrics.OPEN, lambda: {(): self._open})
        watch(metrics.SNAPSHOT_VERSION, lambda: {(): exchange.snapshot.version})
        watch(metrics.SNAPSHOT_AGE, lambda: {(): exchange.snapshot_age_s})
        watch(metrics.LOST, self._lost)

    def _lost(self) -> dict[tuple[str, ...], float]:
        tracing = self._observer.tracing
        lost = {"access_log": self._access_log.lost, "spans": tracing.lost if tracing else 0}
        return {(record,): count for record, count in {**self._records.lost, **lost}.items()}

    async def _publish_metrics(self) -> None:
        while True:
            await asyncio.to_thread(self._replicas.publish, self.telemetry.state())
            await asyncio.sleep(PUBLISH_S)

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
        open_to_all = path in PROBES or path == "/openapi.json"
        if not open_to_all and path != "/v1/models" and not path.startswith("/v1/models/"):
            raise ApiError(404, "not_found", "There is nothing at this path.")
        if path in PROBES:
            _allow(scope, "GET")
        if path == "/healthz":
            await self._json({"status": "alive"}, send, request_id)
        elif path == "/readyz":
            await self._ready(send, request_id)
        elif path == "/metrics":
            body = await asyncio.to_thread(self._replicas.exposition, self.telemetry.state())
            await self._answer(200, b"text/plain; version=0.0.4", body, send, request_id)
        elif path == "/openapi.json":
            await self._answer(200, b"application/json", openapi.body(), send, request_id)
        else:
            caller = await self._access.caller(headers)
            caller.check_endpoint("models")
            await self._models(caller, path, send, request_id)

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
            await self._json(answer, send, request_id, caller)

    async def _ready(self, send: Send, request_id: str) -> None:
        """Ready when some endpoint is: a gateway in front of nothing should get no traffic."""
        if not any(e.ready_replicas for e in self._exchange.snapshot.endpoints.values()):
            raise ApiError(503, "not_ready", "No replica is ready yet.", "service_unavailable")
        await self._json({"status": "ready"}, send, request_id)

    async def _models(self, caller: Caller, path: str, send: Send, request_id: str) -> None:
        cards = [
            {"id": name, "object": "model", "created": 0, "owned_by": "orchestrator"}
            for name in self._exchange.catalogue.workloads[caller.workload].models
            if caller.may_use(name)
        ]
        name = path.removeprefix("/v1/models").strip("/")
        if not name:
            listed = {"object": "list", "data": cards}
            await self._json(listed, send, request_id, caller)
            return
        for card in cards:
            if card["id"] == name:
                await self._json(card, send, request_id, caller)
                return
        raise ApiError(404, "model_not_found", "This key has no model of that name.", param="model")

    async def _json(
        self, value: object, send: Send, request_id: str, caller: Caller | None = None
    ) -> None:
        body, extra = orjson.dumps(value), self._limit_headers(caller)
        await self._answer(200, b"application/json", body, send, request_id, extra)

    async def _error(
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
        await self._answer(error.status, b"application/json", body, send, request_id, extra)

    def _limit_headers(self, caller: Caller | None) -> list[tuple[bytes, bytes]]:
        workload = caller and self._exchange.catalogue.workloads.get(caller.workload)
        return self._limiter.headers(caller, workload.limits) if caller and workload else []

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


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        use, allow = " or ".join(methods), ", ".join(methods)
        raise ApiError(405, "method_not_allowed", f"Use {use} here.", headers={"allow": allow})


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
def _while_connected(scope: Scope, receive: Receive) -> Iterator[None]:
    """Cancels what it surrounds when the client goes away. Raises ClientGone then."""
    surrounded = asyncio.current_task()
    assert surrounded is not None
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        surrounded.cancel()

    when_gone = scope.get("extensions", {}).get(WHEN_GONE)
    watching = None if when_gone else asyncio.create_task(_watch(receive, leave))
    try:
        if when_gone:
            when_gone(leave)
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
