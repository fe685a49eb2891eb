"""The curves of a simulation, as SVG: one policy in detail, or several on the same axes."""

import io
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from orchestrator.simulate.report import Simulated
from orchestrator.simulate.tables import ITL, TTFT
from orchestrator.simulate.tally import HOUR_S, Point, Tally

POOL_COLOURS = matplotlib.color_sequences["tab10"]
WORKLOAD_COLOURS = matplotlib.color_sequences["tab20"]
ZONE_COLOURS = matplotlib.color_sequences["Set2"]
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
STYLES = ("-", "--", "-.", ":")
STATES = {"bursting": "tab:orange", "draining": "tab:olive"}
MOST_STEPS = 400
"""Of a curve that always rises."""
MOST_TICKS = 100
WIDTH, PANEL_HEIGHT, LINE_HEIGHT = 11.0, 2.2, 0.21
"""Of the figure, a panel, and a line of a legend or a row of a panel, in inches."""
SVG = {
    "svg.fonttype": "none",
    "svg.hashsalt": "simulation",
    "hatch.linewidth": 0.5,
}


def detail(run: Simulated) -> str:
    """Arrivals, replicas, bursts, latencies, prices and cost of one policy."""
    drawers = (_arrivals, _replicas, _bursts, _ttft, _itl, _prices, _hours)
    figure, axes = _panels(len(drawers))
    unit = _Unit(run.tally.duration_s)
    for axis, draw in zip(axes, drawers, strict=True):
        draw(axis, run.tally, unit)
    _share_time(axes, run.tally.duration_s, unit)
    return _svg(figure, axes)


def comparison(runs: Sequence[Simulated]) -> str:
    """Cost, replicas and attainment of several policies, on the same axes."""
    figure, axes = _panels(len(runs) + 3)
    duration_s = max(run.tally.duration_s for run in runs)
    unit = _Unit(duration_s)
    _arrivals(axes[0], runs[0].tally, unit)
    for number, run in enumerate(runs):
        curve = [(unit.of(p.now_s), p.usd) for p in _thin(run.tally.points)]
        axes[1].plot(
            *zip(*curve, strict=True),
            STYLES[number % len(STYLES)],
            color=_colour(POOL_COLOURS, number),
            label=run.policy,
        )
    axes[1].set_ylabel("USD so far")
    most = max(sum(p.replicas) for run in runs for p in run.tally.points)
    for axis, run in zip(axes[2:-1], runs, strict=True):
        _replicas(axis, run.tally, unit)
        axis.set_title(run.policy, loc="left", fontsize="small")
        axis.set_ylim(0, 1.05 * max(most, 1))
    _share_time(axes[:-1], duration_s, unit)
    _attainment(axes[-1], runs)
    return _svg(figure, axes)


class _Unit:
    """Of the axis of time."""

    def __init__(self, duration_s: float) -> None:
        if duration_s < 2 * HOUR_S:
            self.name, self._seconds = "seconds", 1.0
        elif duration_s < 96 * HOUR_S:
            self.name, self._seconds = "hours", HOUR_S
        else:
            self.name, self._seconds = "days", 24 * HOUR_S

    def of(self, time_s: float) -> float:
        return time_s / self._seconds


def _panels(count: int) -> tuple[Figure, list[Any]]:
    figure = Figure(layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _share_time(axes: Sequence[Any], duration_s: float, unit: _Unit) -> None:
    for axis in axes:
        axis.set_xlim(0, unit.of(duration_s))
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    axes[-1].set_xlabel(unit.name)


def _svg(figure: Figure, axes: Sequence[Any]) -> str:
    heights = [_height(axis) for axis in axes]
    axes[0].get_gridspec().set_height_ratios(heights)
    figure.set_size_inches(WIDTH, sum(heights))
    buffer = io.StringIO()
    about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(SVG):
        figure.savefig(buffer, format="svg", metadata=about)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _height(axis: Any) -> float:
    """With room for its legend and its names."""
    lines = len(axis.get_legend_handles_labels()[0])
    bottom, top = axis.get_ylim()
    rows = bottom - top  # where rows have names, they are counted downwards
    return max(PANEL_HEIGHT, LINE_HEIGHT * (max(lines, float(rows)) + 2))


def _arrivals(axis: Any, tally: Tally, unit: _Unit) -> None:
    points = _thin(tally.points)
    rates = [
        (unit.of(a.now_s), (b.arrived - a.arrived) / (b.now_s - a.now_s))
        for a, b in pairwise(points)
    ]
    if rates:
        axis.step(*zip(*rates, strict=True), where="post", color="black", linewidth=0.8)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("requests/s")


def _replicas(axis: Any, tally: Tally, unit: _Unit) -> None:
    """Stacked: what is paid for."""
    changes = _changes([(p.now_s, tuple(p.replicas)) for p in tally.points])
    times = [unit.of(now_s) for now_s, _ in changes]
    for number, (pool, below, above) in enumerate(_stacked(tally, [row for _, row in changes])):
        if below == above:
            continue
        axis.fill_between(
            times,
            below,
            above,
            step="post",
            label=pool,
            facecolor=_colour(POOL_COLOURS, number),
            hatch=HATCHES[number // len(POOL_COLOURS) % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("replicas")


def _stacked(tally: Tally, rows: list[tuple[int, ...]]) -> list[tuple[str, list[int], list[int]]]:
    """By pool: from where to where, at each row."""
    return [
        (pool, [sum(row[:number]) for row in rows], [sum(row[: number + 1]) for row in rows])
        for number, pool in enumerate(tally.model.catalogue.pools)
    ]


def _bursts(axis: Any, tally: Tally, unit: _Unit) -> None:
    may = [w.name for w in tally.model.workloads if tally.model.catalogue.burst_pools(w.name)]
    for row, workload in enumerate(may):
        states = [(p.now_s, _state(p, workload)) for p in tally.points]
        states.append((tally.duration_s, states[-1][1]))
        for state, stretch in groupby(pairwise(states), key=lambda pair: pair[0][1]):
            if state is not None:
                pairs = list(stretch)
                start, end = unit.of(pairs[0][0][0]), unit.of(pairs[-1][1][0])
                axis.broken_barh([(start, end - start)], (row - 0.3, 0.6), color=STATES[state])
    axis.set_yticks(range(len(may)), may, fontsize="small")
    axis.set_ylim(len(may) - 0.5, -0.5) if may else axis.set_yticks([])
    for state, colour in STATES.items():
        axis.broken_barh([], (0, 0), color=colour, label=state)
    axis.set_ylabel("bursts")


def _state(point: Point, workload: str) -> str | None:
    if workload in point.bursting:
        return "bursting"
    return "draining" if workload in point.draining else None


def _ttft(axis: Any, tally: Tally, unit: _Unit) -> None:
    objectives = [w.slo.ttft_p95_s for w in tally.model.workloads]
    _latency(axis, tally, unit, TTFT, objectives)
    axis.set_ylabel("TTFT p95, seconds\n(dashed: objective)")


def _itl(axis: Any, tally: Tally, unit: _Unit) -> None:
    objectives = [w.slo.itl_p95_s for w in tally.model.workloads]
    _latency(axis, tally, unit, ITL, objectives)
    axis.set_ylabel("ITL p95, seconds\n(dashed: objective)")


def _latency(
    axis: Any, tally: Tally, unit: _Unit, of: int, objectives: Sequence[float | None]
) -> None:
    for number, (workload, objective_s) in enumerate(
        zip(tally.model.workloads, objectives, strict=True)
    ):
        curve = [(unit.of(now_s), value_s) for now_s, value_s in tally.p95_s(of, number)]
        if not curve:
            continue
        colour = _colour(WORKLOAD_COLOURS, 2 * number + number // 10)
        axis.plot(*zip(*curve, strict=True), color=colour, linewidth=1, label=workload.name)
        if objective_s is not None:
            axis.axhline(objective_s, color=colour, linestyle="--", linewidth=0.8)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=MOST_TICKS))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _prices(axis: Any, tally: Tally, unit: _Unit) -> None:
    for number, pool in enumerate(tally.model.catalogue.pools):
        prices = [(p.now_s, p.usd_per_gpu_hour[number]) for p in tally.points]
        if any(usd is not None for _, usd in prices):
            changes = [(unit.of(now_s), usd) for now_s, usd in _changes(prices)]
            axis.step(
                *zip(*changes, strict=True),
                STYLES[number // len(POOL_COLOURS) % len(STYLES)],
                where="post",
                color=_colour(POOL_COLOURS, number),
                label=pool,
            )
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.set_ylabel("USD per GPU-hour")


def _hours(axis: Any, tally: Tally, unit: _Unit) -> None:
    """What each hour cost, by zone."""
    hours = tally.usd_by_hour
    starts_s = [hour * HOUR_S for hour in range(len(hours))]
    widths = [unit.of(min(HOUR_S, max(tally.duration_s - at_s, 0.0))) for at_s in starts_s]
    below = [0.0] * len(hours)
    for number, zone in enumerate(tally.model.catalogue.zones):
        usd = [hour.get(zone, 0.0) for hour in hours]
        if any(usd):
            axis.bar(
                [unit.of(at_s) for at_s in starts_s],
                usd,
                widths,
                below,
                align="edge",
                color=_colour(ZONE_COLOURS, number),
                edgecolor="white",
                linewidth=0.3,
                label=zone,
            )
            below = [a + b for a, b in zip(below, usd, strict=True)]
    axis.set_ylabel("USD in the hour")


def _attainment(axis: Any, runs: Sequence[Simulated]) -> None:
    shares = []
    for run in runs:
        workloads = run.tally.workloads.values()
        arrived = sum(w.arrived for w in workloads)
        shares.append(sum(w.in_slo for w in workloads) / arrived if arrived else 1.0)
    rows = range(len(runs))
    colours = [_colour(POOL_COLOURS, number) for number in rows]
    bars = axis.barh(rows, [100 * share for share in shares], color=colours)
    axis.bar_label(bars, [f"{share:.2%}" for share in shares], padding=3, fontsize="small")
    axis.set_yticks(rows, [run.policy for run in runs])
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.set_xlim(0, 110)
    axis.set_xlabel("% of requests within their objectives")


def _thin(points: list[Point]) -> list[Point]:
    """Every so many, and the last."""
    every = max(1, len(points) // MOST_STEPS)
    return [*points[:-1:every], points[-1]]


def _changes(values: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    """What begins something else, and the last."""
    kept = [values[0]]
    kept += [after for before, after in pairwise(values) if after[1] != before[1]]
    return [*kept, values[-1]] if kept[-1] is not values[-1] else kept


def _colour(colours: Sequence[Any], number: int) -> Any:
    return colours[number % len(colours)]
