"""The figures of a replay."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from orchestrator.replay.client import Outcome
from orchestrator.replay.observer import Sample

WINDOW_S = 10.0


def quantile(values: Iterable[float | None], q: float) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.quantile(known, q)) if known else None


def ttft_windows(outcomes: Sequence[Outcome], q: float) -> list[tuple[float, float]]:
    """(end of the window, quantile of the TTFT of the requests that arrived in it), in seconds."""
    windows: dict[int, list[float]] = {}
    for o in outcomes:
        if o.ttft_s is not None:
            windows.setdefault(int(o.arrival_s // WINDOW_S), []).append(o.ttft_s)
    return [
        ((number + 1) * WINDOW_S, float(np.quantile(values, q)))
        for number, values in sorted(windows.items())
    ]


def summary(outcomes: Sequence[Outcome], samples: Sequence[Sample]) -> dict[str, Any]:
    """Of requests that have ended, and of the controller's states."""
    ended = [o for o in outcomes if o.status != "open"]
    span_s = max((o.end_s or 0.0 for o in ended), default=0.0)
    workloads = sorted({o.workload for o in ended})
    pools = sorted({o.pool for o in ended if o.pool})
    return {
        "requests": len(ended),
        "not_ok": dict(Counter(o.status for o in ended if o.status != "ok")),
        "duration_s": span_s,
        "late_sends_s_max": max(
            (o.sent_s - o.arrival_s for o in ended if o.sent_s is not None), default=0.0
        ),
        "tokens": {
            "input": sum(o.prompt_tokens for o in ended),
            "output": sum(o.output_tokens for o in ended),
        },
        "by_workload": {w: _group([o for o in ended if o.workload == w]) for w in workloads},
        "by_pool": {
            p: {"share": len(mine) / len(ended), **_group(mine)}
            for p in pools
            for mine in [[o for o in ended if o.pool == p]]
        },
        "bursts": _bursts(samples),
        "cost_usd": _cost(samples),
    }


def write(
    directory: Path, outcomes: Sequence[Outcome], samples: Sequence[Sample], about: dict[str, Any]
) -> dict[str, Any]:
    """Writes `report.json`, `requests.csv` and `states.json`; returns the report."""
    directory.mkdir(parents=True, exist_ok=True)
    report = {**about, **summary(outcomes, samples)}
    (directory / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    (directory / "states.json").write_bytes(orjson.dumps([asdict(s) for s in samples]))
    with (directory / "requests.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Outcome)])
        writer.writeheader()
        writer.writerows(asdict(o) for o in outcomes)
    return report


def _group(outcomes: list[Outcome]) -> dict[str, Any]:
    ttfts = [o.ttft_s for o in outcomes]
    return {
        "requests": len(outcomes),
        "not_ok": sum(o.status != "ok" for o in outcomes),
        "zones": sorted({o.zone for o in outcomes if o.zone}),
        **{f"ttft_p{round(q * 100)}_s": quantile(ttfts, q) for q in (0.5, 0.95, 0.99)},
        "itl_p50_s": quantile((_itl_s(o) for o in outcomes), 0.5),
    }


def _itl_s(outcome: Outcome) -> float | None:
    """Mean time between the tokens of one answer."""
    first_s = outcome.first_token_s
    if first_s is None or outcome.end_s is None or outcome.output_tokens < 2:
        return None
    return (outcome.end_s - first_s) / (outcome.output_tokens - 1)


def _bursts(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Every change of a workload's burst state, with its reason."""
    changes: list[dict[str, Any]] = []
    last: dict[str, str] = {}
    for sample in samples:
        for workload, burst in sample.state["bursts"].items():
            if last.get(workload, "home") != burst["state"]:
                changes.append({"at_s": sample.at_s, "workload": workload, **burst})
            last[workload] = burst["state"]
    return changes


def _cost(samples: Sequence[Sample]) -> dict[str, float] | None:
    if not samples:
        return None
    first, last = samples[0].state["cost_usd"], samples[-1].state["cost_usd"]
    return {name: last[name] - first[name] for name in ("total", "cloud")}
