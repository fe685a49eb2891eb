"""What the controller shows at `/metrics`: its catalogue, and its figures.

A metric of a moment is read from the last tick when somebody asks; moments are shown as the time at
which they were, so that their age goes on growing when ticks do not.
"""

from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, Hold, Snapshot
from orchestrator.signals.metric import Label, Metric
from orchestrator.zombies.finding import Finding, Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LABELS = {
    label.name: label
    for label in (
        Label("workload", "configuration", "workloads"),
        Label("pool", "configuration", "pools"),
        Label("variant", "configuration", "variants"),
        Label("phase", ", ".join(f"`{p}`" for p in BurstPhase), str(len(BurstPhase))),
        Label("hold", ", ".join(f"`{h}`" for h in Hold), str(len(Hold))),
        Label("kind", "fixed words", "30"),
    )
}

LEADER = Metric("orchestrator_leader", "gauge", "1 while this controller is the one that acts")
TICK = Metric(
    "orchestrator_tick_duration_seconds",
    "histogram",
    "One look at the fleet, and what followed from it",
    (),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
TICK_FAILURES = Metric("orchestrator_tick_failures_total", "counter", "Ticks that came to no end")
LAST_TICK = Metric(
    "orchestrator_last_tick_timestamp_seconds", "gauge", "When the last whole tick began"
)
SNAPSHOT = Metric(
    "orchestrator_published_snapshot_version", "gauge", "The newest that gateways can have"
)
GATEWAYS = Metric("orchestrator_reporting_gateways", "gauge", "Gateway replicas that report")
USABLE = Metric(
    "orchestrator_quote_usable",
    "gauge",
    "0 where a pool's price by the hour is missing or stale: no burst starts there",
    ("pool",),
)
QUOTE = Metric(
    "orchestrator_quote_usd_per_gpu_hour", "gauge", "A pool's last price, stale or not", ("pool",)
)
QUOTED_AT = Metric(
    "orchestrator_quote_fetched_timestamp_seconds",
    "gauge",
    "When a pool's price was last read; only where it changes",
    ("pool",),
)
PHASE = Metric(
    "orchestrator_burst_phase", "gauge", "1 for where a workload stands", ("workload", "phase")
)
TRANSITIONS = Metric(
    "orchestrator_burst_transitions_total",
    "counter",
    "Changes of a workload's phase, by the new one",
    ("workload", "phase"),
)
TARGET = Metric(
    "orchestrator_replicas_target", "gauge", "Replicas that there should be", ("pool", "variant")
)
READY = Metric("orchestrator_replicas_ready", "gauge", "Replicas that serve", ("pool", "variant"))
EXISTING = Metric(
    "orchestrator_replicas_existing",
    "gauge",
    "Replicas in any state: what is paid for",
    ("pool", "variant"),
)
HELD = Metric(
    "orchestrator_pool_held", "gauge", "1 for a pool that takes nothing", ("pool", "hold")
)
BUDGET = Metric(
    "orchestrator_budget_usd_per_day", "gauge", "What may be spent on bursts", ("workload",)
)
BUDGET_LEFT = Metric(
    "orchestrator_budget_left_usd", "gauge", "Of it, until midnight UTC", ("workload",)
)
COST = Metric("orchestrator_cost_usd", "gauge", "Spent since the state was begun", ("pool",))
ZOMBIES = Metric(
    "orchestrator_zombies", "gauge", "What is paid for and does nothing, by kind", ("kind",)
)
EVENTS = Metric("orchestrator_events_total", "counter", "Entries of the event log", ("kind",))
ANCHORED = Metric(
    "orchestrator_audit_anchored_timestamp_seconds",
    "gauge",
    "When the ends of the audit chains were last noted",
)

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""In the order in which they stand above."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick came to."""

    catalogue: Catalogue
    snapshot: Snapshot
    targets: Mapping[str, int]
    """Replicas by endpoint."""
    existing: Mapping[str, int]
    """Replicas in any state by endpoint."""
    cost_usd: Mapping[str, float]
    """By pool."""
    gateways: int
    events: Mapping[str, int]
    """Since the start of this process, by kind."""
    clock_step_s: float = 0
    """How far the machine's clock is ahead of the snapshot's times."""


class ControllerMetrics(Collector):
    """For the event loop's thread alone."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._last: Tick | None = None
        self._now_s = 0.0
        self.tick_duration_s = Histogram(
            TICK.name, TICK.help, registry=self._registry, buckets=TICK.buckets
        )
        self.tick_failures = _counter(TICK_FAILURES, self._registry)
        self._transitions = _counter(TRANSITIONS, self._registry)
        self._zombies = _gauge(ZOMBIES, self._registry)
        self.leader = _gauge(LEADER, self._registry)
        self.anchored_at_s = _gauge(ANCHORED, self._registry)
        self._registry.register(self)

    def show(self, tick: Tick) -> None:
        """Shows this tick from now on."""
        before = self._last.snapshot.bursts if self._last else tick.snapshot.bursts
        for workload, state in tick.snapshot.bursts.items():
            was = before[workload].phase if workload in before else BurstPhase.HOME
            if state.phase is not was:
                self._transitions.labels(workload, state.phase.value).inc()
        self._last = tick

    def found(self, zombies: Iterable[Finding]) -> None:
        """Shows these from now on, and no others."""
        by_kind = Counts(finding.kind for finding in zombies)
        for kind in Kind:
            self._zombies.labels(kind).set(by_kind[kind])

    def exposition(self, now_s: float) -> bytes:
        """In Prometheus' text format."""
        self._now_s = now_s
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterable[Family]:
        if self._last is None:
            return
        tick, snapshot = self._last, self._last.snapshot
        by_endpoint = {
            e: (c.pool.name, c.variant.name) for e, c in tick.catalogue.candidates.items()
        }
        priced = [p.name for p in tick.catalogue.configuration.pools if p.price.tokens is None]
        quotes = {name: snapshot.quotes[name] for name in priced if name in snapshot.quotes}
        changing = {
            p.name
            for p in tick.catalogue.configuration.pools
            if p.price.fixed_usd_per_gpu_hour is None
        }
        budgets = {w.name: w.budget for w in tick.catalogue.configuration.workloads if w.budget}
        yield _family(LAST_TICK, {(): snapshot.created_at_s + tick.clock_step_s})
        yield _family(SNAPSHOT, {(): snapshot.version})
        yield _family(GATEWAYS, {(): tick.gateways})
        yield _family(
            USABLE,
            {(p,): float(p in quotes and quotes[p].valid_to_s >= self._now_s) for p in priced},
        )
        yield _family(QUOTE, {(p,): q.usd_per_gpu_hour for p, q in quotes.items()})
        yield _family(
            QUOTED_AT,
            {(p,): quotes[p].fetched_at_s + tick.clock_step_s for p in quotes.keys() & changing},
        )
        yield _family(
            PHASE,
            {
                (workload, phase.value): float(state.phase is phase)
                for workload, state in snapshot.bursts.items()
                for phase in BurstPhase
            },
        )
        yield _family(TARGET, {by_endpoint[e]: n for e, n in tick.targets.items()})
        yield _family(
            READY, {by_endpoint[e]: s.ready_replicas for e, s in snapshot.endpoints.items()}
        )
        yield _family(EXISTING, {by_endpoint[e]: n for e, n in tick.existing.items()})
        yield _family(HELD, {(p, h.value): 1 for p, h in snapshot.holds.items()})
        yield _family(BUDGET, {(w,): b.usd_per_day for w, b in budgets.items()})
        yield _family(BUDGET_LEFT, {(w,): u for w, u in snapshot.budget_left_usd.items()})
        events = CounterMetricFamily(EVENTS.name, EVENTS.help, labels=EVENTS.labels)
        for kind, count in tick.events.items():
            events.add_metric([kind], count)
        yield events
        yield _family(COST, {(p,): usd for p, usd in tick.cost_usd.items()})


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def _family(metric: Metric, figures: Mapping[tuple[str, ...], float]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in figures.items():
        family.add_metric(labels, value)
    return family
