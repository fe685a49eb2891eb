"""Grafana dashboards, as data. Names of metrics come from the catalogues alone."""

from dataclasses import dataclass
from typing import Any

from orchestrator.controller import metrics as controller
from orchestrator.gateway import metrics as gateway
from orchestrator.signals.metric import Metric

Dashboard = dict[str, Any]

WIDTH, HEIGHT = 24, 8
SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over time: expressions by their legends."""

    title: str
    lines: dict[str, str]
    unit: str = "short"


def dashboards() -> dict[str, Dashboard]:
    """By the names of their files."""
    return {
        "requests.json": _dashboard("orchestrator-requests", "Orchestrator: requests", REQUESTS),
        "capacity.json": _dashboard("orchestrator-capacity", "Orchestrator: capacity", CAPACITY),
    }


def _rate(metric: Metric, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric.name}{where}[$__rate_interval]))"


def _sum(metric: Metric, by: str) -> str:
    return f"sum by ({by}) ({metric.name})"


def _p95(metric: Metric, by: str) -> str:
    buckets = f"sum by (le, {by}) (rate({metric.name}_bucket[$__rate_interval]))"
    return f"histogram_quantile(0.95, {buckets})"


def _age(metric: Metric, by: str) -> str:
    return f"time() - max by ({by}) ({metric.name})"


ENDPOINT = "{{pool}}/{{variant}}"

REQUESTS = [
    Panel("Requests", {"{{workload}}": _rate(gateway.REQUESTS, "workload")}, "reqps"),
    Panel("Answers by status", {"{{code}}": _rate(gateway.REQUESTS, "code")}, "reqps"),
    Panel("Errors", {"{{workload}} {{error_type}}": _rate(gateway.ERRORS, "workload, error_type")}),
    Panel("TTFT, 95th percentile", {"{{workload}}": _p95(gateway.FIRST_TOKEN, "workload")}, "s"),
    Panel(
        "Time per output token, 95th percentile",
        {"{{workload}}": _p95(gateway.PER_TOKEN, "workload")},
        "s",
    ),
    Panel("Duration, 95th percentile", {"{{workload}}": _p95(gateway.DURATION, "workload")}, "s"),
    Panel("Tokens a second", {"{{model}} {{type}}": _rate(gateway.TOKENS_TOTAL, "model, type")}),
    Panel("Tokens a second by zone", {"{{zone}}": _rate(gateway.TOKENS_TOTAL, "zone")}),
    Panel("Open upstream", {ENDPOINT: _sum(gateway.INFLIGHT, "pool, variant")}),
    Panel("Waiting in gateways", {"{{workload}}": _sum(gateway.QUEUE, "workload")}),
    Panel("Wait, 95th percentile", {"{{workload}}": _p95(gateway.QUEUE_WAIT, "workload")}, "s"),
    Panel("Refused for want of capacity", {"{{workload}}": _rate(gateway.SHED, "workload")}),
    Panel("Attempts that failed", {"{{pool}} {{reason}}": _rate(gateway.FAILURES, "pool, reason")}),
    Panel(
        "Attempts beyond the first",
        {"{{kind}}": _rate(gateway.ATTEMPTS, "kind", '{kind!="first"}')},
    ),
    Panel(
        "Requests raised above their workload's class",
        {"{{workload}} {{data_class}}": _rate(gateway.RAISED, "workload, data_class")},
    ),
    Panel("Found in content", {"{{finding}}": _rate(gateway.FINDINGS, "finding")}),
    Panel("Reading content, 95th percentile", {"": _p95(gateway.CLASSIFICATION, "workload")}, "s"),
    Panel("Lines of batches", {"{{line_outcome}}": _rate(gateway.BATCH_LINES, "line_outcome")}),
    Panel("Age of the snapshot", {"": f"max({gateway.SNAPSHOT_AGE.name})"}, "s"),
    Panel("Records lost", {"{{record}}": _sum(gateway.LOST, "record")}),
]

CAPACITY = [
    Panel(
        "Replicas: target and ready",
        {
            f"target {ENDPOINT}": _sum(controller.TARGET, "pool, variant"),
            f"ready {ENDPOINT}": _sum(controller.READY, "pool, variant"),
        },
    ),
    Panel("Replicas that are paid for", {"{{pool}}": _sum(controller.EXISTING, "pool")}),
    Panel(
        "Bursts",
        {"{{workload}} {{phase}}": f'{controller.PHASE.name}{{phase!="home"}} == 1'},
    ),
    Panel(
        "Changes of phase an hour",
        {
            "{{workload}} {{phase}}": "sum by (workload, phase) "
            f"(increase({controller.TRANSITIONS.name}[1h]))"
        },
    ),
    Panel("Price per GPU-hour", {"{{pool}}": controller.QUOTE.name}, "currencyUSD"),
    Panel("Age of prices", {"{{pool}}": _age(controller.QUOTED_AT, "pool")}, "s"),
    Panel("Pools without a usable price", {"{{pool}}": f"{controller.USABLE.name} == 0"}),
    Panel("Spent an hour", {"{{pool}}": f"delta({controller.COST.name}[1h])"}, "currencyUSD"),
    Panel("Budget left today", {"{{workload}}": controller.BUDGET_LEFT.name}, "currencyUSD"),
    Panel("Zombies", {"{{kind}}": _sum(controller.ZOMBIES, "kind")}),
    Panel("Pools that are held", {"{{pool}} {{hold}}": controller.HELD.name}),
    Panel("Events", {"{{kind}}": _rate(controller.EVENTS, "kind")}),
    Panel(
        "Ticks, 95th percentile",
        {
            "": "histogram_quantile(0.95, "
            f"sum by (le) (rate({controller.TICK.name}_bucket[$__rate_interval])))"
        },
        "s",
    ),
    Panel("Ticks that failed", {"": f"increase({controller.TICK_FAILURES.name}[5m])"}),
    Panel("Leaders", {"": f"sum({controller.LEADER.name})"}),
    Panel("Gateways that report", {"": controller.GATEWAYS.name}),
]


def _dashboard(uid: str, title: str, panels: list[Panel]) -> Dashboard:
    return {
        "uid": uid,
        "title": title,
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["orchestrator"],
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    columns = 2
    width = WIDTH // columns
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {
            "x": number % columns * width,
            "y": number // columns * HEIGHT,
            "w": width,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + line),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
            }
            for line, (legend, expr) in enumerate(panel.lines.items())
        ],
    }
