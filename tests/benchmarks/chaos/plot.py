"""The timeline of a run."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tests.benchmarks.chaos.records import Records

WINDOW_S = 5.0
POOLS = ("tab:blue", "tab:orange")
OUTCOMES = {"refused": "0.7", "typed": "tab:purple"}
PHASES = {"bursting": "tab:orange", "draining": "tab:olive"}


def timeline(path: Path, records: Records, title: str) -> None:
    """Writes a PNG."""
    figure, axes = plt.subplots(
        4,
        1,
        figsize=(14, 11),
        sharex=True,
        constrained_layout=True,
        height_ratios=(3, 1, 1.5, 2.5),
    )
    figure.suptitle(title)
    _requests(axes[0], records)
    _phases(axes[1], records)
    _replicas(axes[2], records)
    _prices(axes[3], records)
    _faults(axes, records)
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper right", fontsize="small", ncols=2)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(left=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _requests(axis: Any, records: Records) -> None:
    """Those that ended, stacked: whole ones by pool, others by outcome."""
    place = records.place
    kinds: dict[str, str] = {
        f"whole on {pool}": colour
        for pool, colour in zip((place.home_pool, place.cloud_pool), POOLS, strict=True)
    }
    kinds |= OUTCOMES | {"broken": "tab:red"}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for request in records.requests:
        kind = f"whole on {request.pool}" if request.outcome == "whole" else request.outcome
        times[kind if kind in kinds else "broken"].append(request.ended_s - records.began_s)
    last_s = max((t for ended in times.values() for t in ended), default=0)
    edges = np.arange(0, last_s + 2 * WINDOW_S, WINDOW_S)
    below = np.zeros(len(edges) - 1)
    for kind, ended in times.items():
        rate = np.histogram(ended, edges)[0] / WINDOW_S
        axis.bar(edges[:-1], rate, WINDOW_S, below, align="edge", color=kinds[kind], label=kind)
        below += rate
    axis.set_ylabel("requests/s")


def _phases(axis: Any, records: Records) -> None:
    """A stretch ends where the controller was silent."""
    workload = records.place.bursting
    for before, after in pairwise(records.samples):
        burst = before.state["bursts"].get(workload)
        if burst and burst["state"] in PHASES and after.at_s - before.at_s < WINDOW_S:
            stretch = before.at_s - records.began_s, after.at_s - records.began_s
            axis.axvspan(*stretch, color=PHASES[burst["state"]], linewidth=0)
    for phase, colour in PHASES.items():
        axis.axvspan(0, 0, color=colour, label=phase)
    axis.plot(
        [s.at_s - records.began_s for s in records.samples],
        [0.5] * len(records.samples),
        "|",
        color="black",
        markersize=3,
        label="the controller answers",
    )
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel(workload)


def _replicas(axis: Any, records: Records) -> None:
    times = [s.at_s - records.began_s for s in records.samples]
    pools = records.place.home_pool, records.place.cloud_pool
    for pool, colour in zip(pools, POOLS, strict=True):
        for what, style in (("replicas_ready", "-"), ("replicas_target", ":")):
            values = [s.state["pools"][pool][what] for s in records.samples]
            label = f"{pool} {what.removeprefix('replicas_')}"
            axis.step(times, values, style, where="post", color=colour, label=label)
    axis.set_ylabel("replicas")


def _prices(axis: Any, records: Records) -> None:
    """A lie below zero stands at the bottom, what is no number nowhere."""
    for label, style, wanted in (("fed: true", "g.", True), ("fed: a lie", "rx", False)):
        points = [
            (a.at_s - records.began_s, max(a.usd, 1e-3))
            for a in records.answers
            if a.usd is not None and (a.kind == "truth") is wanted
        ]
        if points:
            axis.plot(*zip(*points, strict=True), style, markersize=4, label=label)
    for label, colour, is_stale in (("believed", "black", False), ("stale", "tab:gray", True)):
        quotes = [
            (s.at_s, s.state["pools"][records.place.cloud_pool]["quote"]) for s in records.samples
        ]
        points = [
            (at_s - records.began_s, quote["usd_per_gpu_hour"])
            if quote and quote["stale"] is is_stale
            else (at_s - records.began_s, float("nan"))
            for at_s, quote in quotes
        ]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=2, label=label)
    axis.set_yscale("log")
    axis.set_ylabel("USD per GPU-hour")


def _faults(axes: Any, records: Records) -> None:
    """Behind everything; red where a pool was hit."""
    ends = [r.ended_s for r in records.requests] + [s.at_s for s in records.samples]
    last_s = max(ends, default=records.began_s)
    for number, fault in enumerate(records.faults):
        stretch = fault.began_s - records.began_s, (fault.ended_s or last_s) - records.began_s
        for axis in axes:
            axis.axvspan(*stretch, color="tab:red" if fault.pool else "tab:cyan", alpha=0.12)
        axes[0].text(
            stretch[0],
            1 - 0.05 * (number % 3),
            fault.name,
            transform=axes[0].get_xaxis_transform(),
            fontsize="x-small",
            verticalalignment="top",
        )
