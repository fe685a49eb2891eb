"""One HTTP request: who asks, what for, and who answers it."""

import asyncio
import logging
from functools import partial

from orchestrator.config.spec import Gateway as Spec
from orchestrator.gateway import openapi
from orchestrator.gateway.access import Access
from orchestrator.gateway.asgi import AsgiScope, Receive, Send, while_connected
from orchestrator.gateway.batches import BatchApi, BatchApiRequest, Content
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.dialects import ENDPOINTS
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.limits import Limiter
from orchestrator.gateway.observer import CLIENT_GONE, Arrival, Observer
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.replicas import Replicas
from orchestrator.gateway.replies import Replies, request_id_of
from orchestrator.gateway.request_body import read_body
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.gateway")

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths for those who watch the gateway; they are no requests."""


class Api:
    def __init__(
        self,
        exchange: Exchange,
        access: Access,
        limiter: Limiter,
        intake: Intake,
        relay: Relay,
        batches: BatchApi,
        observer: Observer,
        replicas: Replicas,
        telemetry: Telemetry,
    ) -> None:
        self.open = 0
        """Requests that clients have open."""
        self._exchange = exchange
        self._access = access
        self._limiter = limiter
        self._intake = intake
        self._relay = relay
        self._batches = batches
        self._observer = observer
        self._replicas = replicas
        self._telemetry = telemetry
        self._replies = Replies(exchange, limiter)

    @property
    def _spec(self) -> Spec:
        return self._exchange.catalogue.configuration.gateway

    async def answer(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
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
                self._check_place()
                self.open += 1
                try:
                    raw = await read_body(headers, scope, receive, self._spec.max_body_bytes)
                    assert arrival is not None, "an endpoint is no probe"
                    call = await self._intake.read(
                        request_id,
                        caller,
                        partial(self._access.again, headers),
                        path,
                        scope["headers"],
                        raw,
                        send,
                        arrival.started_s,
                    )
                    call.trace = arrival.trace
                    with (
                        self._limiter.admitted(call),
                        self._telemetry.demand.of(call),
                        while_connected(scope, receive),
                    ):
                        await self._relay.run(call)
                finally:
                    self.open -= 1
            elif self._batches.serves(path):
                caller = await self._access.caller(headers)
                self._check_place()
                self.open += 1
                try:
                    await self._batch(caller, scope, receive, send, request_id)
                finally:
                    self.open -= 1
            else:
                await self._local(scope, headers, send, request_id)
        except ApiError as error:
            status, code = error.status, error.code
            if call is not None and call.status:
                raise
            await self._replies.error(error, path, send, request_id, caller)
        except ClientGone:
            pass
        except Exception as error:
            # Where it went wrong is for the log; the client learns only that it was us.
            log.error("request %s failed: %s", request_id, without_text(error))
            status, code = 500, "internal_error"
            if call is not None and call.status:
                raise
            ours = ApiError(500, "internal_error", "The gateway failed.", "server_error")
            await self._replies.error(ours, path, send, request_id, caller)
        else:
            status, code = 200, ""
        finally:
            if arrival is not None:
                self._observer.answered(arrival, caller, call, status, code)

    def _check_place(self) -> None:
        """Whether one request more may be open, from before its body. Raises ApiError 429."""
        if self.open >= self._spec.max_concurrent_requests:
            raise ApiError(
                429,
                "too_many_requests",
                "The gateway is at its limit of open requests.",
                "rate_limit_error",
                headers={"retry-after": "1"},
            )

    async def _local(
        self, scope: AsgiScope, headers: dict[bytes, bytes], send: Send, request_id: str
    ) -> None:
        path = scope["path"]
        open_to_all = path in PROBES or path == "/openapi.json"
        if not open_to_all and path != "/v1/models" and not path.startswith("/v1/models/"):
            raise ApiError(404, "not_found", "There is nothing at this path.")
        if path in PROBES:
            _allow(scope, "GET")
        if path == "/healthz":
            await self._replies.json({"status": "alive"}, send, request_id)
        elif path == "/readyz":
            await self._ready(send, request_id)
        elif path == "/metrics":
            body = await asyncio.to_thread(self._replicas.exposition, self._telemetry.state())
            await self._replies.send(200, b"text/plain; version=0.0.4", body, send, request_id)
        elif path == "/openapi.json":
            await self._replies.send(200, b"application/json", openapi.body(), send, request_id)
        else:
            caller = await self._access.caller(headers)
            caller.check_endpoint("models")
            await self._models(caller, path, send, request_id)

    async def _batch(
        self, caller: Caller, scope: AsgiScope, receive: Receive, send: Send, request_id: str
    ) -> None:
        asked = BatchApiRequest(
            caller,
            scope["method"],
            scope["path"],
            scope["query_string"],
            scope["headers"],
            receive,
            partial(read_body, dict(scope["headers"]), scope, receive, self._spec.max_body_bytes),
        )
        answer = await self._batches.answer(asked)
        if isinstance(answer, Content):
            about = [(b"x-request-id", request_id.encode())]
            await self._batches.send_content(answer, receive, send, about)
        else:
            await self._replies.json(answer, send, request_id, caller)

    async def _ready(self, send: Send, request_id: str) -> None:
        """Ready when some endpoint is: a gateway in front of nothing should get no traffic."""
        if not any(e.ready_replicas for e in self._exchange.snapshot.endpoints.values()):
            raise ApiError(503, "not_ready", "No replica is ready yet.", "service_unavailable")
        await self._replies.json({"status": "ready"}, send, request_id)

    async def _models(self, caller: Caller, path: str, send: Send, request_id: str) -> None:
        cards = [
            {"id": name, "object": "model", "created": 0, "owned_by": "orchestrator"}
            for name in self._exchange.catalogue.workloads[caller.workload].models
            if caller.may_use(name)
        ]
        name = path.removeprefix("/v1/models").strip("/")
        if not name:
            listed = {"object": "list", "data": cards}
            await self._replies.json(listed, send, request_id, caller)
            return
        for card in cards:
            if card["id"] == name:
                await self._replies.json(card, send, request_id, caller)
                return
        raise ApiError(404, "model_not_found", "This key has no model of that name.", param="model")


def _allow(scope: AsgiScope, *methods: str) -> None:
    if scope["method"] not in methods:
        use, allow = " or ".join(methods), ", ".join(methods)
        raise ApiError(405, "method_not_allowed", f"Use {use} here.", headers={"allow": allow})
