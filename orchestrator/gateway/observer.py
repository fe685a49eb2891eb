"""What is told of a request when it has ended: to the metrics, the access log and its trace."""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.gateway.access_log import AccessEntry, AccessLog
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.refusals import OUT_OF_TIME
from orchestrator.gateway.routes import Route, route_of
from orchestrator.gateway.telemetry import Telemetry

if TYPE_CHECKING:
    from orchestrator.gateway.tracing import RequestTrace, Tracing

CLIENT_GONE = "client_gone"


@dataclass(slots=True)
class Arrival:
    """A request of which nothing was read yet but its head."""

    request_id: str
    route: Route
    time_s: float
    """Seconds since the epoch."""
    started_s: float
    """Of the monotonic clock."""
    trace: "RequestTrace | None"


class Observer:
    def __init__(self, gateway_id: str, telemetry: Telemetry, access_log: AccessLog) -> None:
        self._gateway_id = gateway_id
        self._telemetry = telemetry
        self._access_log = access_log
        self.tracing = tracing_by_environment(gateway_id)

    def arrived(
        self, request_id: str, method: str, path: str, traceparent: bytes | None
    ) -> Arrival:
        route = route_of(path)
        trace: RequestTrace | None = None
        if self.tracing is not None:
            trace = self.tracing.request(method, route, traceparent)
        return Arrival(request_id, route, time.time(), time.monotonic(), trace)

    def answered(
        self, arrival: Arrival, caller: Caller | None, call: Call | None, status: int, error: str
    ) -> None:
        """With what was known of the request when it ended. `error`: its code, empty where there
        is none."""
        duration_s = time.monotonic() - arrival.started_s
        endpoint = arrival.route.path
        workload = caller.workload if caller else ""
        entry = AccessEntry(
            arrival.time_s,
            self._gateway_id,
            arrival.request_id,
            arrival.trace.trace_id if arrival.trace is not None else None,
            endpoint,
            status,
            None,
            duration_s,
        )
        if caller is not None:
            entry.caller_id, entry.workload = caller.id, caller.workload
        model = zone = pool = ""
        if call is not None:
            error = error or _interruption(call)
            # The model is the client's word until the configuration knows it.
            known = call.request.model in call.rules.catalogue.by_model
            entry.model = model = call.request.model if known else "unknown"
            zone, pool = call.zone, call.pool
            _tell(entry, call)
            self._telemetry.classified(workload, call.classified_s)
            if call.queued_s:
                self._telemetry.waited(workload, call.queued_s)
        entry.code = error or None
        self._telemetry.answered(workload, model, zone, pool, status, endpoint, duration_s, error)
        self._access_log.append(entry)
        if arrival.trace is not None:
            arrival.trace.end(call, workload, model, status, error)


def _interruption(call: Call) -> str:
    """The code of the event that ended a stream before its end."""
    if not call.status or call.answered_by is None or call.answered_by.outcome == "complete":
        return ""
    return "time_limit" if call.answered_by.outcome == OUT_OF_TIME else "stream_interrupted"


def _tell(entry: AccessEntry, call: Call) -> None:
    entry.stream = call.request.stream
    entry.data_class = call.data_class.label
    entry.policy_version = call.rules.catalogue.version
    entry.queued_s = call.queued_s
    entry.attempts = len(call.attempts)
    attempt, used = call.decisive, call.used
    if attempt is None:
        return
    candidate = attempt.grant.candidate
    entry.policy_version = attempt.grant.policy_version
    entry.snapshot_version = attempt.grant.snapshot_version
    entry.zone, entry.pool = candidate.zone.name, candidate.pool.name
    entry.variant, entry.outcome = candidate.variant.name, attempt.outcome
    if call.request.stream and attempt.first_token_s is not None:
        entry.ttft_s = attempt.first_token_s - call.started_s
    entry.prompt_tokens = used.prompt_tokens
    entry.cached_tokens = used.cached_tokens
    entry.completion_tokens = used.completion_tokens
    sources = {attempt.usage_source for attempt in call.attempts}
    entry.usage_source = next(s for s in ("counted", "engine", "none") if s in sources)


def tracing_by_environment(gateway_id: str) -> "Tracing | None":
    """Spans where the operator names a collector in OpenTelemetry's own variables, else None."""
    named = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )
    if off or not any(os.environ.get(name) for name in named):
        return None
    # Its imports take longer than the rest of the gateway's start.
    from orchestrator.gateway.tracing import Tracing

    return Tracing(gateway_id)
