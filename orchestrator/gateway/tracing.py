"""OpenTelemetry spans by the GenAI conventions: one for each request, one for each attempt below
it. No content, no credentials, no client's header but the trace that it belongs to.

Set up by OpenTelemetry's own environment variables, and imported only where they ask for it.
"""

import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.routes import Route
from orchestrator.policy.decide import Decision

CLOSE_S = 5.0
"""How long a gateway that stops waits for the collector."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"})


class Tracing:
    """Spans wait in a bounded queue for a thread that sends them: a collector that is slow or gone
    costs requests nothing, and loses spans, which are counted."""

    def __init__(self, gateway_id: str) -> None:
        resource = Resource.create({"service.instance.id": gateway_id})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "orchestrator-gateway"}))
        # What samples is chosen by OTEL_TRACES_SAMPLER.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._queue = _Queue(_Exporter(OTLPSpanExporter()))
        self._provider.add_span_processor(self._queue)
        self._tracer = self._provider.get_tracer("orchestrator.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def request(self, method: str, route: Route, traceparent: bytes | None) -> "RequestTrace":
        """A client's trace goes on here; what else it says of it, and its baggage, does not."""
        carrier = {"traceparent": traceparent.decode("latin-1")} if traceparent else {}
        method = method if method in METHODS else "_OTHER"
        span = self._tracer.start_span(
            f"{method} {route.path}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route.path},
        )
        return RequestTrace(self._tracer, span, route.operation)

    @property
    def lost(self) -> int:
        return self._queue.lost

    def close(self) -> None:
        """Sends what waits, for some seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class RequestTrace:
    def __init__(self, tracer: Tracer, span: Span, operation: str) -> None:
        self._tracer = tracer
        self._span = span
        self._operation = operation
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"

    def decided(self, number: int, decision: Decision) -> None:
        """`number` of the attempt, from 1."""
        attributes: dict[str, AttributeValue] = {
            "orchestrator.attempt": number,
            "orchestrator.data_class": decision.data_class.label,
            "orchestrator.policy_version": decision.policy_version,
        }
        if decision.grant is not None:
            attributes.update(_place(decision.grant.candidate.endpoint))
            attributes["orchestrator.zone"] = decision.grant.candidate.zone.name
        else:
            attributes["orchestrator.denied"] = decision.denied or ""
        self._span.add_event("orchestrator.decision", attributes)

    def attempt(self, call: Call, attempt: Attempt) -> "AttemptTrace":
        grant = attempt.grant
        candidate = grant.candidate
        address = urlsplit(candidate.url)
        model = candidate.variant.served_name or candidate.model.name
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": "openai" if candidate.cluster.kind == "openai" else "vllm",
            "gen_ai.request.model": model,
            "gen_ai.request.stream": call.request.stream,
            "server.address": address.hostname or "",
            "server.port": address.port or (443 if address.scheme == "https" else 80),
            "orchestrator.attempt": attempt.number,
            "orchestrator.attempt.kind": attempt.kind,
            "orchestrator.zone": candidate.zone.name,
            "orchestrator.data_class": grant.data_class.label,
            "orchestrator.policy_version": grant.policy_version,
            "orchestrator.snapshot_version": grant.snapshot_version,
            **_place(candidate.endpoint),
        }
        span = self._tracer.start_span(
            f"{self._operation} {model}",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            attributes,
        )
        return AttemptTrace(span)

    def end(self, call: Call | None, workload: str, model: str, status: int, error: str) -> None:
        """`error`: its code, empty where there is none."""
        span = self._span
        span.set_attribute("http.response.status_code", status)
        if workload:
            span.set_attribute("orchestrator.workload", workload)
        if call is not None:
            self._describe(call, model)
        if error:
            span.set_attribute("error.type", error)
        if status >= 500 or (status == 200 and error):
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _describe(self, call: Call, model: str) -> None:
        request = call.request
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": "orchestrator",
            "gen_ai.request.model": model,
            "gen_ai.request.stream": request.stream,
            "orchestrator.request_id": call.request_id,
            "orchestrator.attempts": len(call.attempts),
            "orchestrator.data_class": call.data_class.label,
        }
        if request.max_tokens:
            attributes["gen_ai.request.max_tokens"] = request.max_tokens
        if (attempt := call.decisive) is not None:
            used = call.used
            attributes["gen_ai.usage.input_tokens"] = used.prompt_tokens
            attributes["gen_ai.usage.output_tokens"] = used.completion_tokens
            attributes["gen_ai.usage.cache_read.input_tokens"] = used.cached_tokens
            attributes["gen_ai.response.model"] = attempt.grant.candidate.variant.name
            if request.stream and attempt.first_token_s is not None:
                took_s = attempt.first_token_s - call.started_s
                attributes["gen_ai.response.time_to_first_chunk"] = took_s
        self._span.set_attributes(attributes)
        self._span.update_name(f"{self._operation} {model}")


class AttemptTrace:
    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        )
        """Of W3C, for the engine's own spans to belong to this one."""

    def end(self, attempt: Attempt) -> None:
        used = attempt.used
        attributes: dict[str, AttributeValue] = {
            "gen_ai.response.model": attempt.grant.candidate.variant.name,
            "gen_ai.usage.input_tokens": used.prompt_tokens,
            "gen_ai.usage.output_tokens": used.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": used.cached_tokens,
            "orchestrator.outcome": attempt.outcome,
        }
        if attempt.first_token_s is not None:
            took_s = attempt.first_token_s - attempt.started_s
            attributes["gen_ai.response.time_to_first_chunk"] = took_s
        if attempt.outcome != "complete":
            attributes["error.type"] = attempt.outcome
            if attempt.outcome != "cancelled":
                self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes(attributes)
        self._span.end()


def _place(endpoint: str) -> dict[str, AttributeValue]:
    pool, _, variant = endpoint.partition("/")
    return {"orchestrator.pool": pool, "orchestrator.variant": variant}


class _Exporter(SpanExporter):
    """Counts what it takes, and what does not arrive."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Queue(BatchSpanProcessor):
    def __init__(self, exporter: _Exporter) -> None:
        self._capacity = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or 2048)
        super().__init__(exporter, max_queue_size=self._capacity)
        self._sent = exporter
        self._queued = 0
        self._overrun = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            if self._queued - self._overrun - self._sent.taken >= self._capacity:
                self._overrun += 1
            self._queued += 1
        super().on_end(span)

    @property
    def lost(self) -> int:
        return self._overrun + self._sent.failed
