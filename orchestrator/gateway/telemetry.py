"""What a gateway measures: its metrics, and the report that it sends to the controller at every
tick. For the event loop's thread alone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.config.data_class import DataClass
from orchestrator.gateway import metrics
from orchestrator.gateway.demand import Demand
from orchestrator.gateway.inflight import Inflight
from orchestrator.gateway.metrics import RAISED_BY
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.series import Counts, Distribution, State
from orchestrator.signals.metric import Metric
from orchestrator.signals.report import EndpointReport

MAX_SAMPLES = 5000
"""Latencies kept per endpoint between two reports; a gateway cut off for long forgets the rest."""


@dataclass(slots=True)
class _Tally:
    ttft_s: list[float] = field(default_factory=list)
    slot_s: list[float] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Telemetry:
    def __init__(self) -> None:
        self.inflight = Inflight()
        self.demand = Demand()
        self._waiting: dict[str, dict[object, float]] = defaultdict(dict)
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)
        self._requests = Counts(metrics.REQUESTS)
        self._errors = Counts(metrics.ERRORS)
        self._refused_early = Counts(metrics.REFUSED_EARLY)
        self._duration = Distribution(metrics.DURATION)
        self._first_token = Distribution(metrics.FIRST_TOKEN)
        self._per_token = Distribution(metrics.PER_TOKEN)
        self._token_usage = Distribution(metrics.TOKEN_USAGE)
        self._tokens = Counts(metrics.TOKENS_TOTAL)
        self._attempts = Counts(metrics.ATTEMPTS)
        self._failures = Counts(metrics.FAILURES)
        self._queued: dict[tuple[str, ...], float] = defaultdict(float)
        self._shed = Counts(metrics.SHED)
        self._queue_wait = Distribution(metrics.QUEUE_WAIT)
        self._lines = Counts(metrics.BATCH_LINES)
        self._classification = Distribution(metrics.CLASSIFICATION)
        self._findings = Counts(metrics.FINDINGS)
        self._raised = Counts(metrics.RAISED)
        self._counted = [v for v in vars(self).values() if isinstance(v, Counts | Distribution)]
        self._watched: dict[Metric, Callable[[], Mapping[tuple[str, ...], float]]] = {}
        self.watch(metrics.INFLIGHT, self._inflight_by_place)
        self.watch(metrics.QUEUE, lambda: self._queued)

    def watch(self, gauge: Metric, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Has a gauge read whenever the metrics are asked for; `read` gives values by labels."""
        self._watched[gauge] = read

    @contextmanager
    def queued(self, workload: str, priority: int) -> Iterator[None]:
        """Around the wait of a request in the gateway."""
        labels = workload, str(priority)
        self._queued[labels] += 1
        try:
            yield
        finally:
            self._queued[labels] -= 1

    def shed(self, workload: str, priority: int, reason: str) -> None:
        self._shed.add((workload, str(priority), reason))

    def opened(self, endpoint: str, attempt: object, waits_since_s: float | None) -> None:
        """`waits_since_s` is for attempts that will tell of their first token."""
        if waits_since_s is not None:
            self._waiting[endpoint][attempt] = waits_since_s

    def first_token(
        self,
        endpoint: str,
        attempt: object,
        workload: str,
        model: str,
        attempt_s: float,
        request_s: float,
    ) -> None:
        """What the endpoint took, the wait for a place there included, for the controller; what the
        client waited since its request arrived, body and failed attempts too, for people."""
        self._waiting[endpoint].pop(attempt, None)
        tally = self._tallies[endpoint]
        if len(tally.ttft_s) < MAX_SAMPLES:
            tally.ttft_s.append(attempt_s)
        self._first_token.observe((workload, model, _pool(endpoint)), request_s)

    def closed(
        self, endpoint: str, attempt: object, kind: str, outcome: str, slot_s: float | None
    ) -> None:
        """`kind` and `outcome` as the catalogue of metrics has them. `slot_s`: from the first token
        of a stream to its end."""
        self._waiting[endpoint].pop(attempt, None)
        tally = self._tallies[endpoint]
        if slot_s is not None and len(tally.slot_s) < MAX_SAMPLES:
            tally.slot_s.append(slot_s)
        pool, _, variant = endpoint.partition("/")
        self._attempts.add((pool, variant, kind, outcome))

    def failed(self, endpoint: str, reason: str) -> None:
        pool, _, variant = endpoint.partition("/")
        self._failures.add((pool, variant, reason))

    def answered(
        self,
        workload: str,
        model: str,
        zone: str,
        pool: str,
        status: int,
        endpoint: str,
        duration_s: float,
        error_type: str = "",
    ) -> None:
        """`endpoint` is a path of the API. `error_type`: the code of an answer that is an error."""
        self._requests.add((workload, model, zone, pool, str(status), endpoint))
        self._duration.observe((workload, model, endpoint), duration_s)
        if error_type:
            self._errors.add((workload, error_type))

    def refused_early(self, status: int) -> None:
        """What came on a connection never was a request."""
        self._refused_early.add((str(status),))

    def used(
        self,
        endpoint: str,
        workload: str,
        model: str,
        zone: str,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
    ) -> None:
        self._tallies[endpoint].tokens[workload] += prompt_tokens + completion_tokens
        self._tokens.add((workload, model, zone, "input"), prompt_tokens)
        self._tokens.add((workload, model, zone, "output"), completion_tokens)
        if cached_tokens:
            self._tokens.add((workload, model, zone, "cached"), cached_tokens)
        self._token_usage.observe((workload, model, "input"), prompt_tokens)
        self._token_usage.observe((workload, model, "output"), completion_tokens)

    def paced(self, endpoint: str, workload: str, model: str, per_token_s: float) -> None:
        """A stream's average time from token to token."""
        self._per_token.observe((workload, model, _pool(endpoint)), per_token_s)

    def waited(self, workload: str, queued_s: float) -> None:
        """For a replica, until there was one or patience ended."""
        self._queue_wait.observe((workload,), queued_s)

    def line_ended(self, workload: str, outcome: str) -> None:
        """`outcome` as the catalogue of metrics has it."""
        self._lines.add((workload, outcome))

    def classified(self, workload: str, took_s: float) -> None:
        self._classification.observe((workload,), took_s)

    def read(self, workload: str, own: DataClass, labels: Labels) -> None:
        """What was found out of a request's sensitivity."""
        classification = labels.classification
        for kind, count in classification.counts.items():
            self._findings.add((kind,), count)
        if classification.failed:
            self._findings.add((classification.failed,))
        if labels.highest > own:
            for by in RAISED_BY:
                label: DataClass = getattr(labels, by)
                if label > own:
                    self._raised.add((workload, label.label, by))

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

    def state(self) -> State:
        """All figures as they are now: a copy, which any thread may read."""
        state = {counted.metric.name: counted.figures() for counted in self._counted}
        for gauge, read in self._watched.items():
            state[gauge.name] = list(read().items())
        return state

    def _inflight_by_place(self) -> dict[tuple[str, ...], float]:
        return {tuple(e.split("/")): n for e, n in self.inflight.by_endpoint.items()}


def _pool(endpoint: str) -> str:
    return endpoint[: endpoint.index("/")]
