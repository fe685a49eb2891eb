"""The timeline of a replay: arrivals, TTFT, replicas with burst states, prices."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from orchestrator.config.spec import Configuration
from orchestrator.replay.client import Outcome
from orchestrator.replay.observer import Sample
from orchestrator.replay.report import WINDOW_S, ttft_windows

COLOURS = plt.get_cmap("tab10").colors
HATCHES = ("", "//", "..", "xx")
STATES = {"bursting": "tab:orange", "draining": "tab:olive"}


def timeline(
    path: Path,
    title: str,
    outcomes: Sequence[Outcome],
    samples: Sequence[Sample],
    configuration: Configuration,
) -> None:
    """Writes a PNG."""
    figure, axes = plt.subplots(4, 1, figsize=(11, 11), sharex=True, constrained_layout=True)
    figure.suptitle(title)
    _arrivals(axes[0], outcomes, configuration)
    _ttft(axes[1], outcomes, configuration)
    _replicas(axes[2], samples, configuration)
    _prices(axes[3], samples, configuration)
    for axis in axes:
        _shade_bursts(axis, samples)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper right", fontsize="small")
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(left=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colours(configuration: Configuration) -> dict[str, Any]:
    """By pool, the same in every panel."""
    return {p.name: COLOURS[i % len(COLOURS)] for i, p in enumerate(configuration.pools)}


def _arrivals(axis: Any, outcomes: Sequence[Outcome], configuration: Configuration) -> None:
    """Stacked; the colour is the pool, the hatching the workload, black what got no answer."""
    colours = _colours(configuration)
    workloads = [w.name for w in configuration.workloads]
    edges = np.arange(0, max((o.arrival_s for o in outcomes), default=0.0) + 2 * WINDOW_S, WINDOW_S)
    below = np.zeros(len(edges) - 1)
    for workload, pool in sorted({(o.workload, o.pool) for o in outcomes}):
        times = [o.arrival_s for o in outcomes if (o.workload, o.pool) == (workload, pool)]
        rate = np.histogram(times, edges)[0] / WINDOW_S
        axis.bar(
            edges[:-1],
            rate,
            WINDOW_S,
            below,
            align="edge",
            color=colours.get(pool, "black"),
            hatch=HATCHES[workloads.index(workload) % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
            label=f"{workload} on {pool}" if pool else f"{workload} refused",
        )
        below += rate
    axis.set_ylabel("requests/s")


def _ttft(axis: Any, outcomes: Sequence[Outcome], configuration: Configuration) -> None:
    for pool, colour in _colours(configuration).items():
        points = ttft_windows([o for o in outcomes if o.pool == pool], 0.95)
        if points:
            axis.plot(*zip(*points, strict=True), marker=".", color=colour, label=f"p95 on {pool}")
    for workload in configuration.workloads:
        if workload.burst and workload.burst.ttft_p95_s:
            _limit(axis, workload.burst.ttft_p95_s, f"{workload.name} bursts above")
    axis.set_yscale("log")
    axis.set_ylabel("TTFT, seconds")


def _replicas(axis: Any, samples: Sequence[Sample], configuration: Configuration) -> None:
    times = [s.at_s for s in samples]
    for pool, colour in _colours(configuration).items():
        for field, style in (("replicas_ready", "-"), ("replicas_target", ":")):
            values = [s.state["pools"][pool][field] for s in samples]
            label = f"{pool} {field.removeprefix('replicas_')}"
            axis.step(times, values, style, where="post", color=colour, label=label)
    axis.set_ylabel("replicas")


def _prices(axis: Any, samples: Sequence[Sample], configuration: Configuration) -> None:
    for pool, colour in _colours(configuration).items():
        points = [
            (s.at_s, quote["usd_per_gpu_hour"])
            for s in samples
            if (quote := s.state["pools"][pool]["quote"])
        ]
        if points:
            axis.step(*zip(*points, strict=True), where="post", color=colour, label=pool)
    for workload in configuration.workloads:
        ceiling = workload.price_ceiling.usd_per_gpu_hour
        if ceiling is not None:
            _limit(axis, ceiling, f"ceiling of {workload.name}")
    axis.set_ylabel("USD per GPU-hour")


def _limit(axis: Any, value: float, label: str) -> None:
    axis.axhline(value, color="tab:red", linestyle="--", label=label)


def _shade_bursts(axis: Any, samples: Sequence[Sample]) -> None:
    """Behind everything: orange while a workload bursts, olive while it drains."""
    for workload in samples[0].state["bursts"] if samples else ():
        states = [(s.at_s, s.state["bursts"][workload]["state"]) for s in samples]
        for state, stretch in groupby(pairwise(states), key=lambda pair: pair[0][1]):
            if state in STATES:
                pairs = list(stretch)
                axis.axvspan(pairs[0][0][0], pairs[-1][1][0], color=STATES[state], alpha=0.2)
