"""Prometheus rules: burn rates of the objectives, and what somebody has to look at.

Burn rates over several windows, as in Google's SRE workbook, "Alerting on SLOs": a page when 2 % of
a month's error budget went in an hour or 5 % in six, a ticket when 10 % went in one day or three.
The long window says that it matters, the short one that it still goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from orchestrator.config.spec import Configuration
from orchestrator.controller import metrics as controller
from orchestrator.gateway import metrics as gateway
from orchestrator.policy.snapshot import BurstPhase
from orchestrator.signals.metric import Metric

Rule = dict[str, Any]
Group = dict[str, Any]

AVAILABILITY = 0.999
"""Of the answers that are not the client's fault."""
LATENCY = 0.95
"""The objectives of latency are 95th percentiles."""
BURSTS_PER_HOUR = 3
"""More of one workload's are flapping: thresholds, dwell and cooldown do not fit the load."""
QUIET_S = 30
"""For so long a controller or a gateway may say nothing without a word of ours."""


@dataclass(frozen=True, slots=True)
class Window:
    """A pair of windows, and the burn rate that is too high in both."""

    long: str
    short: str
    rate: float
    severity: str


WINDOWS = (
    Window("1h", "5m", 14.4, "page"),
    Window("6h", "30m", 6, "page"),
    Window("1d", "2h", 3, "ticket"),
    Window("3d", "6h", 1, "ticket"),
)
SPANS = sorted(
    {span for w in WINDOWS for span in (w.long, w.short)},
    key=lambda span: int(span[:-1]) * {"m": 60, "h": 3600, "d": 86400}[span[-1]],
)


def groups(configuration: Configuration) -> list[Group]:
    """All rules, as Prometheus reads them."""
    return [
        _group("orchestrator-availability", list(_availability())),
        _group("orchestrator-latency", list(_latency(configuration))),
        _group("orchestrator-gateway", list(_gateway(configuration))),
        _group("orchestrator-controller", list(_controller(configuration))),
        _group("orchestrator-capacity", list(_capacity(configuration))),
    ]


def _group(name: str, rules: list[Rule]) -> Group:
    return {"name": name, "rules": rules}


def _record(name: str, expr: str, labels: dict[str, str] | None = None) -> Rule:
    return {"record": name, "expr": expr, **({"labels": labels} if labels else {})}


def _alert(
    name: str, expr: str, severity: str, summary: str, mend: str, wait: str = "0m", **labels: str
) -> Rule:
    return {
        "alert": f"Orchestrator{name}",
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary, "description": mend},
    }


def _availability() -> Iterator[Rule]:
    requests = gateway.REQUESTS.name
    record = "orchestrator:request_errors:ratio_rate"
    for span in SPANS:
        bad = f'sum by (workload) (rate({requests}{{code=~"5.."}}[{span}]))'
        all_of_them = f'sum by (workload) (rate({requests}{{code!~"4.."}}[{span}]))'
        # A workload without an error yet has no such series: it has none of them.
        yield _record(f"{record}{span}", f"({bad} or 0 * {all_of_them}) / {all_of_them}")
    yield from _burns(
        "AvailabilityBurn",
        record,
        AVAILABILITY,
        "requests of {{ $labels.workload }} fail",
        "see orchestrator_errors_total by error_type, and orchestrator_upstream_failures_total by "
        "pool",
    )


def _latency(configuration: Configuration) -> Iterator[Rule]:
    limits: dict[str, tuple[Metric, dict[str, float]]] = {
        "ttft": (
            gateway.FIRST_TOKEN,
            {w.name: w.slo.ttft_p95_s for w in configuration.workloads},
        ),
        "itl": (
            gateway.PER_TOKEN,
            {w.name: w.slo.itl_p95_s for w in configuration.workloads if w.slo.itl_p95_s},
        ),
    }
    for what, (metric, limits_s) in limits.items():
        record = f"orchestrator:{what}_misses:ratio_rate"
        for workload, limit_s in limits_s.items():
            yield from _misses(record, metric, workload, limit_s)
        yield from _burns(
            f"{what.capitalize()}Burn",
            record,
            LATENCY,
            what.upper() + " of {{ $labels.workload }} misses {{ $labels.objective_s }} s",
            "see where its requests wait: orchestrator_queue_length, replicas ready against "
            "target, and its burst's phase",
        )


def _misses(record: str, metric: Metric, workload: str, limit_s: float) -> Iterator[Rule]:
    bound = bucket(metric, limit_s)
    if bound is None:
        return
    chosen = f'workload="{workload}"'
    for span in SPANS:
        fast = f'sum by (workload) (rate({metric.name}_bucket{{{chosen},le="{bound}"}}[{span}]))'
        every = f"sum by (workload) (rate({metric.name}_count{{{chosen}}}[{span}]))"
        labels = {"workload": workload, "objective_s": f"{limit_s:g}"}
        yield _record(f"{record}{span}", f"1 - {fast} / {every}", labels)


def bucket(metric: Metric, limit_s: float) -> float | None:
    """The histogram's bound that stands for an objective: the next one, so that no answer counts
    as late that is in time. None: it lies beyond them all."""
    return next((float(bound) for bound in metric.buckets if bound >= limit_s), None)


def _burns(name: str, record: str, objective: float, summary: str, mend: str) -> Iterator[Rule]:
    for window in WINDOWS:
        limit = f"{window.rate:g} * {1 - objective:.6g}"
        yield _alert(
            name,
            f"{record}{window.long} > {limit} and {record}{window.short} > {limit}",
            window.severity,
            f"{summary}: the error budget burns at {window.rate:g} times the rate over "
            f"{window.long}",
            mend,
            window=window.long,
        )


def _gateway(configuration: Configuration) -> Iterator[Rule]:
    yield _alert(
        "GatewayDown",
        f"absent({gateway.SNAPSHOT_VERSION.name})",
        "page",
        "no gateway answers",
        "see the pods of the RayService 'gateway' and the log of Serve's replica; a gateway that "
        "cannot open its audit trail or its sessions does not start",
        "1m",
    )
    stale_s = configuration.policy.snapshot_stale_s
    yield _alert(
        "SnapshotOld",
        f"max({gateway.SNAPSHOT_AGE.name}) > {max(QUIET_S, stale_s / 2):g}",
        "page",
        "a gateway hears nothing new from the controller",
        f"after {stale_s:g} s every request counts as restricted; see the controller's log and the "
        "network between them",
    )
    yield _alert(
        "AuditRecordsLost",
        f'sum({gateway.LOST.name}{{record="audit"}}) > 0',
        "page",
        "decisions are not on record",
        "the disk of the gateway's state is full or broken; 'orchestrator audit verify' shows what "
        "is missing",
    )
    yield _alert(
        "RecordsLost",
        f'sum by (record) ({gateway.LOST.name}{{record!="audit"}}) > 0',
        "ticket",
        "records of kind {{ $labels.record }} are lost",
        "the disk of the gateway's state is full, or too slow for the load",
    )
    yield _alert(
        "EndpointEjected",
        f"max by (pool, variant) ({gateway.EJECTED.name}) == 1",
        "ticket",
        "{{ $labels.pool }}/{{ $labels.variant }} keeps failing and is left alone",
        "see orchestrator_upstream_failures_total by reason, and the engine's log",
        "10m",
    )
    yield _alert(
        "ClassifierFails",
        f'sum(increase({gateway.FINDINGS.name}{{finding=~"timeout|error"}}[15m])) > 20',
        "ticket",
        "content cannot be read in time, so its requests count as restricted",
        "raise policy.classifier.budget_s, or give the gateway more processors",
    )


def _controller(configuration: Configuration) -> Iterator[Rule]:
    tick_s = configuration.controller.tick_s
    yield _alert(
        "ControllerDown",
        f"absent({controller.LEADER.name} == 1)",
        "page",
        "no controller leads",
        "gateways go on with the last snapshot until it is stale; see the controllers' logs and "
        "the Lease",
        "1m",
    )
    yield _alert(
        "TwoLeaders",
        f"sum({controller.LEADER.name}) > 1",
        "page",
        "two controllers act",
        "stop one of them; see the Lease and the clocks of their nodes",
        "1m",
    )
    yield _alert(
        "TicksStopped",
        f"time() - max({controller.LAST_TICK.name}) > {max(QUIET_S, 10 * tick_s):g}",
        "page",
        "the controller's ticks come to no end",
        "its log says which cluster or file it waits for",
    )
    yield _alert(
        "TicksSlow",
        f"histogram_quantile(0.95, sum by (le) (rate({controller.TICK.name}_bucket[10m]))) "
        f"> {tick_s:g}",
        "ticket",
        "ticks take longer than they should be apart",
        "a cluster's API is slow, or the controller needs more processors",
        "10m",
    )
    yield _alert(
        "AuditNotAnchored",
        f"time() - (max({controller.ANCHORED.name}) > 0) > 600",
        "page",
        "the ends of the audit chains are not noted",
        "until they are, a tail that is cut off does not show; see the controller's log and disk",
    )


def _capacity(configuration: Configuration) -> Iterator[Rule]:
    yield _alert(
        "PriceStale",
        f"{controller.USABLE.name} == 0",
        "ticket",
        "pool {{ $labels.pool }} has no price that may be used, so no burst starts there",
        "see the feed and the log of the controller, which says why a price is refused",
        "5m",
    )
    yield _alert(
        "BudgetNearlySpent",
        f"{controller.BUDGET_LEFT.name} / {controller.BUDGET.name} < 0.1 "
        f"and {controller.BUDGET_LEFT.name} > 0",
        "ticket",
        "{{ $labels.workload }} has a tenth of the day's budget left",
        "when it is spent its bursts end; raise budget.usd_per_day, or see what the burst is for",
    )
    yield _alert(
        "BudgetSpent",
        f"{controller.BUDGET_LEFT.name} <= 0",
        "ticket",
        "{{ $labels.workload }} has spent the day's budget and stays at home",
        "its latency may suffer until midnight UTC; raise budget.usd_per_day",
    )
    yield _alert(
        "BurstFlaps",
        "sum by (workload) (increase("
        f'{controller.TRANSITIONS.name}{{phase="{BurstPhase.BURSTING}"}}[1h])) > {BURSTS_PER_HOUR}',
        "ticket",
        "{{ $labels.workload }} bursts and comes back again and again",
        "raise burst.min_dwell_s, burst.cooldown_s or the trigger; or give home a replica more",
    )
    drain_s = configuration.controller.drain_timeout_s
    yield _alert(
        "DrainLong",
        f'{controller.PHASE.name}{{phase="{BurstPhase.DRAINING}"}} == 1',
        "ticket",
        "{{ $labels.workload }} still drains, and its burst pool is paid for",
        "see the open requests of the pool, and gateways that hold an old snapshot",
        f"{ceil(drain_s)}s",
    )
    provision_s = max(pool.provision_s for pool in configuration.pools)
    yield _alert(
        "ReplicasMissing",
        f"{controller.READY.name} < {controller.TARGET.name}",
        "ticket",
        "{{ $labels.pool }}/{{ $labels.variant }} has fewer replicas than it should",
        "'orchestrator status' says why its cluster does not make them",
        f"{ceil(2 * provision_s)}s",
    )
    yield _alert(
        "Zombies",
        f"sum by (kind) ({controller.ZOMBIES.name}) > 0",
        "ticket",
        "GPUs are paid for and do nothing: {{ $labels.kind }}",
        "'orchestrator zombies' shows each with its owner, its cost so far and what to do",
        "10m",
    )
