"""The ASGI application: one OpenAI-compatible endpoint."""

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path

from orchestrator.config.spec import Gateway as Spec
from orchestrator.gateway import metrics
from orchestrator.gateway.access import Access
from orchestrator.gateway.access_log import AccessLog
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.api import Api
from orchestrator.gateway.asgi import AsgiScope, Receive, Send
from orchestrator.gateway.background import background
from orchestrator.gateway.batches import BatchApi
from orchestrator.gateway.deferred import Deferred
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.intake import Intake
from orchestrator.gateway.limits import Limiter
from orchestrator.gateway.observer import Observer
from orchestrator.gateway.records import Records
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.replicas import PUBLISH_S, Replicas
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import Upstreams
from orchestrator.ledger.audit import AuditLog
from orchestrator.ledger.usage import UsageLedger
from orchestrator.policy.grant import Grant
from orchestrator.safe_log import loop_exception
from orchestrator.sessions.ratchet import Ratchet
from orchestrator.signals.report import AuditHead

log = logging.getLogger("orchestrator.gateway")

SESSION_KEY = "ORCHESTRATOR_SESSION_KEY"
"""Environment variable with the secret that conversations are recognized by. Whoever changes it
forgets which conversations were raised."""


class Gateway:
    """Raises ConfigurationError without whole rules, SessionsUnavailable and OSError when there is
    no place to remember and to record: then it must not serve."""

    def __init__(self, state: Path) -> None:
        """`state` is the directory with the policy in force, and for all that is put on record."""
        self.telemetry = Telemetry()
        admission: Admission[Grant] = Admission(0)
        self._exchange = Exchange(state, self.telemetry, admission.queue, self._audit_head)
        self._sensitivity = Sensitivity(Ratchet(state / "sessions.sqlite", _session_key()))
        self._access = Access(self._exchange)
        self._limiter = Limiter(state / "limits")
        intake = Intake(self._exchange, self._sensitivity)
        self._ledger = UsageLedger(state / "ledger.sqlite")
        self._audit = AuditLog(state / "audit", self._exchange.gateway_id)
        self._records = Records(self._ledger, self._audit)
        self._access_log = AccessLog(state / "logs" / "access.jsonl")
        self._observer = Observer(self._exchange.gateway_id, self.telemetry, self._access_log)
        deferred = Deferred(
            state / "batch", self._exchange, admission, intake, self._observer, self.telemetry
        )
        self._batches = BatchApi(self._exchange, deferred)
        self._replicas = Replicas(state / "metrics", self._exchange.gateway_id)
        self._upstreams = Upstreams(self.spec.timeouts)
        self._relay = Relay(
            self._exchange,
            admission,
            self._upstreams,
            self._sensitivity,
            self._records,
            self.telemetry,
        )
        self._api = Api(
            self._exchange,
            self._access,
            self._limiter,
            intake,
            self._relay,
            self._batches,
            self._observer,
            self._replicas,
            self.telemetry,
        )
        self._watch()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._api.answer(scope, receive, send)

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
            running.callback(self._sensitivity.close)
            running.enter_context(self._ledger)
            running.enter_context(self._audit)
            running.enter_context(self._access_log)
            if self._observer.tracing is not None:
                running.push_async_callback(asyncio.to_thread, self._observer.tracing.close)
            await running.enter_async_context(self._upstreams)
            running.push_async_callback(self._exchange.say_goodbye)
            running.enter_context(self._limiter)
            running.callback(self._replicas.leave)
            for name, loop in (
                ("the exchange with the controller", self._exchange.run),
                ("what follows from exchanges", self._relay.follow),
                ("the renewal of issuers' keys", self._access.run),
                ("the sharing of metrics", self._publish_metrics),
            ):
                await running.enter_async_context(background(name, loop))
            await running.enter_async_context(self._batches.running(self._relay))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _watch(self) -> None:
        exchange, watch = self._exchange, self.telemetry.watch
        watch(metrics.OPEN, lambda: {(): self._api.open})
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


def _session_key() -> bytes:
    key = os.environ.get(SESSION_KEY, "")
    if len(key) < 16:
        raise OSError(f"set {SESSION_KEY} to a secret of 16 characters at least")
    return key.encode()
