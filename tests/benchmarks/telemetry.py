"""What counting costs a request: everything that one streamed request is counted under, by the
gateway's own series and by `prometheus_client`'s; an entry of the access log; its two spans."""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from rich.console import Console
from rich.table import Table

from orchestrator.classify import Classification
from orchestrator.config.data_class import DataClass
from orchestrator.gateway import metrics
from orchestrator.gateway.access_log import AccessEntry, AccessLog
from orchestrator.gateway.metrics import CATALOGUE
from orchestrator.gateway.routes import route_of
from orchestrator.gateway.sensitivity import Labels
from orchestrator.gateway.series import exposition
from orchestrator.gateway.telemetry import Telemetry

ENDPOINT, CHAT = "pool/variant", "/v1/chat/completions"
FOUND = Labels(
    DataClass.PUBLIC, DataClass.PUBLIC, Classification(DataClass.PUBLIC), conversation=None
)


def one_request(telemetry: Telemetry, request: int) -> None:
    telemetry.read("workload", DataClass.INTERNAL, FOUND)
    telemetry.opened(ENDPOINT, request, 1.0)
    telemetry.first_token(ENDPOINT, request, "workload", "model", 0.1, 0.2)
    telemetry.closed(ENDPOINT, request, "first", "complete", 0.3)
    telemetry.paced(ENDPOINT, "workload", "model", 0.03)
    telemetry.used(ENDPOINT, "workload", "model", "zone", 100, 20, 50)
    telemetry.classified("workload", 0.0001)
    telemetry.answered("workload", "model", "zone", "pool", 200, CHAT, 0.4)


def by_prometheus_client() -> Callable[[int], None]:
    """The same figures under the same labels."""
    registry = CollectorRegistry()
    made: dict[str, Any] = {}
    for metric in CATALOGUE:
        if metric.kind == "histogram":
            made[metric.name] = Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
            )
        else:
            kind = Counter if metric.kind == "counter" else Gauge
            made[metric.name] = kind(metric.name, metric.help, metric.labels, registry=registry)

    def one(_: int) -> None:
        inflight = made[metrics.INFLIGHT.name].labels("pool", "variant")
        inflight.inc()
        place = ("workload", "model", "pool")
        made[metrics.FIRST_TOKEN.name].labels(*place).observe(0.2)
        inflight.dec()
        made[metrics.ATTEMPTS.name].labels("pool", "variant", "first", "complete").inc()
        made[metrics.PER_TOKEN.name].labels(*place).observe(0.03)
        for kind, count in (("input", 100), ("output", 20), ("cached", 50)):
            made[metrics.TOKENS_TOTAL.name].labels("workload", "model", "zone", kind).inc(count)
            if kind != "cached":
                made[metrics.TOKEN_USAGE.name].labels("workload", "model", kind).observe(count)
        made[metrics.CLASSIFICATION.name].labels("workload").observe(0.0001)
        made[metrics.REQUESTS.name].labels("workload", "model", "zone", "pool", "200", CHAT).inc()
        made[metrics.DURATION.name].labels("workload", "model", CHAT).observe(0.4)

    return one


def logged(log: AccessLog) -> Callable[[int], None]:
    def one(_: int) -> None:
        entry = AccessEntry(1.0, "gateway", "request", None, CHAT, 200, None, 0.4)
        entry.caller_id, entry.workload, entry.model = "key", "workload", "model"
        entry.zone, entry.pool, entry.variant = "zone", "pool", "variant"
        log.append(entry)

    return one


def traced() -> Callable[[int], None]:
    """To a collector that is not there."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    from orchestrator.gateway.tracing import Tracing

    tracing = Tracing("gateway")
    candidate: Any = SimpleNamespace(
        endpoint=ENDPOINT,
        url="http://127.0.0.1:9/pools/home/variant",
        variant=SimpleNamespace(name="variant", served_name=None),
        model=SimpleNamespace(name="model"),
        cluster=SimpleNamespace(kind="ray"),
        zone=SimpleNamespace(name="zone"),
    )
    used = SimpleNamespace(prompt_tokens=100, completion_tokens=20, cached_tokens=50)
    grant = SimpleNamespace(
        candidate=candidate,
        data_class=DataClass.INTERNAL,
        policy_version="0123456789ab",
        snapshot_version=1,
    )
    attempt: Any = SimpleNamespace(
        grant=grant,
        number=1,
        kind="first",
        outcome="complete",
        started_s=1.0,
        first_token_s=1.1,
        used=used,
    )
    call: Any = SimpleNamespace(
        request=SimpleNamespace(stream=True, max_tokens=20),
        request_id="request",
        started_s=1.0,
        attempts=[attempt],
        used=used,
        data_class=DataClass.INTERNAL,
    )
    decision: Any = SimpleNamespace(
        data_class=DataClass.INTERNAL, policy_version="0123456789ab", grant=grant, denied=None
    )
    route = route_of(CHAT)

    def one(_: int) -> None:
        trace = tracing.request("POST", route, None)
        trace.decided(1, decision)
        trace.attempt(call, attempt).end(attempt)
        trace.end(call, "workload", "model", 200, "")

    return one


def cost_us(one: Callable[[int], None], times: int, between: Callable[[], Any]) -> float:
    """Of the best of five runs."""
    best_s = float("inf")
    for _ in range(5):
        started_s = time.perf_counter()
        for number in range(times):
            one(number)
        best_s = min(best_s, time.perf_counter() - started_s)
        between()
    return best_s / times * 1e6


def scrape_ms(workloads: int) -> float:
    """For a company where every workload is counted under every label that it may have here."""
    telemetry = Telemetry()
    for number in range(workloads):
        name = f"workload-{number}"
        telemetry.first_token(ENDPOINT, 0, name, "model", 0.1, 0.1)
        telemetry.paced(ENDPOINT, name, "model", 0.03)
        telemetry.used(ENDPOINT, name, "model", "zone", 1, 1, 1)
        telemetry.classified(name, 0.0001)
        telemetry.answered(name, "model", "zone", "pool", 200, CHAT, 0.1)
    started_s = time.perf_counter()
    state = telemetry.state()
    copied_s = time.perf_counter()
    size = len(exposition({"gateway": state}))
    shown_s = time.perf_counter()
    Console().print(
        f"{workloads} workloads: {(copied_s - started_s) * 1e3:.2f} ms in the event loop, "
        f"{(shown_s - copied_s) * 1e3:.0f} ms in a thread for {size / 1e6:.1f} MB"
    )
    return (copied_s - started_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    telemetry = Telemetry()
    with tempfile.TemporaryDirectory() as directory:
        log = AccessLog(Path(directory) / "access.jsonl", capacity=options.requests)
        figures = {
            "metrics, own series": cost_us(
                lambda n: one_request(telemetry, n), options.requests, lambda: telemetry.report(0)
            ),
            "metrics, prometheus_client": cost_us(
                by_prometheus_client(), options.requests, lambda: None
            ),
            "access log": cost_us(logged(log), options.requests, log._queue.clear),
            "two spans, where they are on": cost_us(traced(), options.requests // 10, lambda: None),
        }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    table = Table("a request", "µs")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:.2f}")
    Console().print(table)
    scrape_ms(500)


if __name__ == "__main__":
    main()
