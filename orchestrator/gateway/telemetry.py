"""What a gateway measures: Prometheus metrics, and the report that it sends at every tick.

Every label takes its values from the configuration or from a fixed list.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.inflight import Inflight
from orchestrator.gateway.sensitivity import Labels
from orchestrator.signals.report import EndpointReport

MAX_SAMPLES = 5000
"""Latencies kept per endpoint between two reports; a gateway cut off for long forgets the rest."""

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(slots=True)
class _Tally:
    ttft_s: list[float] = field(default_factory=list)
    slot_s: list[float] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Telemetry:
    def __init__(self) -> None:
        self.inflight = Inflight()
        self._waiting: dict[str, dict[object, float]] = defaultdict(dict)
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "orchestrator_requests",
            "Requests that got an answer, whatever it was; labels are empty where nothing is known",
            ["workload", "model", "zone", "pool", "code"],
            registry=self.registry,
        )
        self._failures = Counter(
            "orchestrator_upstream_failures",
            "Attempts that an upstream failed",
            ["pool", "variant", "reason"],
            registry=self.registry,
        )
        self._ttft = Histogram(
            "orchestrator_time_to_first_token_seconds",
            "From the request's arrival to its first token",
            ["workload", "pool"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._tokens = Counter(
            "orchestrator_tokens",
            "Tokens as counted by the engine",
            ["workload", "model", "zone", "type"],
            registry=self.registry,
        )
        self._inflight_gauge = Gauge(
            "orchestrator_inflight_requests",
            "Requests open upstream",
            ["pool", "variant"],
            registry=self.registry,
        )
        self._snapshot_version = Gauge(
            "orchestrator_snapshot_version",
            "Snapshot on which this gateway decides",
            registry=self.registry,
        )
        self._lost = Gauge(
            "orchestrator_records_lost",
            "Records that could not be written since the start",
            ["record"],
            registry=self.registry,
        )
        self._queued = Gauge(
            "orchestrator_queued_requests",
            "Requests that wait in the gateway for an endpoint that is full or not there",
            ["workload", "priority"],
            registry=self.registry,
        )
        self._queue_time = Histogram(
            "orchestrator_queue_time_seconds",
            "How long requests that waited in the gateway did so, whatever became of them",
            ["workload", "priority"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._shed = Counter(
            "orchestrator_shed_requests",
            "Requests refused for want of capacity",
            ["workload", "priority", "reason"],
            registry=self.registry,
        )
        self._findings = Counter(
            "orchestrator_content_findings",
            "What the classifier found in requests",
            ["type"],
            registry=self.registry,
        )
        self._raised = Counter(
            "orchestrator_raised_requests",
            "Requests above the class of their workload, and what raised them",
            ["workload", "data_class", "by"],
            registry=self.registry,
        )

    @contextmanager
    def queued(self, workload: str, priority: int) -> Iterator[None]:
        """Around the wait of a request in the gateway."""
        gauge, started_s = self._queued.labels(workload, priority), time.monotonic()
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()
            self._queue_time.labels(workload, priority).observe(time.monotonic() - started_s)

    def shed(self, workload: str, priority: int, reason: str) -> None:
        self._shed.labels(workload, priority, reason).inc()

    def opened(self, endpoint: str, attempt: object, waits_since_s: float | None) -> None:
        """`waits_since_s` is for attempts that will tell of their first token."""
        self.inflight.add(endpoint, 1)
        if waits_since_s is not None:
            self._waiting[endpoint][attempt] = waits_since_s

    def first_token(
        self, endpoint: str, attempt: object, workload: str, attempt_s: float, request_s: float
    ) -> None:
        """What the endpoint took, the wait for a place there included, for the controller; what the
        client waited since its request arrived, body and failed attempts too, for people."""
        self._waiting[endpoint].pop(attempt, None)
        tally = self._tallies[endpoint]
        if len(tally.ttft_s) < MAX_SAMPLES:
            tally.ttft_s.append(attempt_s)
        self._ttft.labels(workload, endpoint.split("/")[0]).observe(request_s)

    def closed(self, endpoint: str, attempt: object, slot_s: float | None) -> None:
        self.inflight.add(endpoint, -1)
        self._waiting[endpoint].pop(attempt, None)
        tally = self._tallies[endpoint]
        if slot_s is not None and len(tally.slot_s) < MAX_SAMPLES:
            tally.slot_s.append(slot_s)

    def failed(self, endpoint: str, reason: str) -> None:
        pool, variant = endpoint.split("/")
        self._failures.labels(pool, variant, reason).inc()

    def answered(self, workload: str, model: str, zone: str, pool: str, status: int) -> None:
        self._requests.labels(workload, model, zone, pool, str(status)).inc()

    def used(
        self,
        endpoint: str,
        workload: str,
        model: str,
        zone: str,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        self._tallies[endpoint].tokens[workload] += prompt_tokens + completion_tokens
        self._tokens.labels(workload, model, zone, "input").inc(prompt_tokens)
        self._tokens.labels(workload, model, zone, "output").inc(completion_tokens)

    def report(self, now_s: float) -> dict[str, EndpointReport]:
        """Everything since the last report, by endpoint. What is measured from now on is for the
        next one, which `not_taken` gives this one's figures too."""
        tallies, self._tallies = self._tallies, defaultdict(_Tally)
        return {
            endpoint: EndpointReport(
                inflight=self.inflight.by_endpoint.get(endpoint, 0),
                waiting_ages_s=[
                    now_s - since for since in list(self._waiting[endpoint].values())[:MAX_SAMPLES]
                ],
                ttft_s=tally.ttft_s,
                slot_s=tally.slot_s,
                tokens=dict(tally.tokens),
            )
            for endpoint in {*self.inflight.by_endpoint, *tallies}
            for tally in [tallies[endpoint]]
        }

    def not_taken(self, report: dict[str, EndpointReport]) -> None:
        """Takes back the figures of a report that did not reach the controller."""
        for endpoint, figures in report.items():
            tally = self._tallies[endpoint]
            tally.ttft_s = (figures.ttft_s + tally.ttft_s)[:MAX_SAMPLES]
            tally.slot_s = (figures.slot_s + tally.slot_s)[:MAX_SAMPLES]
            for workload, tokens in figures.tokens.items():
                tally.tokens[workload] += tokens

    def read(self, workload: str, own: DataClass, labels: Labels) -> None:
        """What was found out of a request's sensitivity."""
        classification = labels.classification
        for kind, count in classification.counts.items():
            self._findings.labels(kind).inc(count)
        if classification.failed:
            self._findings.labels(classification.failed).inc()
        for by in ("claimed", "session", "content"):
            label: DataClass = getattr(labels, by)
            if label > own:
                self._raised.labels(workload, label.label, by).inc()

    def exposition(self, snapshot_version: int, lost: Mapping[str, int]) -> bytes:
        """`lost`: records that could not be written, by kind."""
        self._snapshot_version.set(snapshot_version)
        for record, count in lost.items():
            self._lost.labels(record).set(count)
        for endpoint, count in self.inflight.by_endpoint.items():
            self._inflight_gauge.labels(*endpoint.split("/")).set(count)
        return generate_latest(self.registry)
