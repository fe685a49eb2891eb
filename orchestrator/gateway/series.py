"""Figures by their labels: counted in the event loop's thread at the cost of a look-up, put into
Prometheus' format when somebody asks.

`prometheus_client` takes a lock and a chain of calls for each figure, and for a large company
almost half a second to show them.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

from orchestrator.gateway.metrics import CATALOGUE, MAX_SERIES, OVERFLOW
from orchestrator.signals.metric import Metric

Labels = tuple[str, ...]
Figures = list[tuple[Sequence[str], float | list[float]]]
State = dict[str, Figures]
"""What one gateway has counted, by metric; JSON can hold it."""


class Counts:
    """A counter."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        try:
            self._values[labels] += amount
        except KeyError:
            labels = _bounded(labels, len(self._values))
            self._values[labels] = self._values.get(labels, 0) + amount

    def figures(self) -> Figures:
        return list(self._values.items())


class Distribution:
    """A histogram."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._buckets = metric.buckets
        self._values: dict[Labels, list[float]] = {}
        """A count for each bucket, one for what is over the last, and the sum."""

    def observe(self, labels: Labels, value: float) -> None:
        try:
            counts = self._values[labels]
        except KeyError:
            labels = _bounded(labels, len(self._values))
            counts = self._values.setdefault(labels, [0] * (len(self._buckets) + 2))
        counts[bisect_left(self._buckets, value)] += 1
        counts[-1] += value

    def figures(self) -> Figures:
        return [(labels, counts.copy()) for labels, counts in self._values.items()]


def _bounded(labels: Labels, series: int) -> Labels:
    return labels if series < MAX_SERIES else (OVERFLOW,) * len(labels)


def exposition(states: Mapping[str, State]) -> bytes:
    """The states of gateways, by their ids, in Prometheus' text format 0.0.4. What a state has in
    another shape than this version's is left out."""
    lines: list[str] = []
    for metric in CATALOGUE:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for gateway, state in states.items():
            for labels, figure in state.get(metric.name, ()):
                if len(labels) == len(metric.labels):
                    names = zip((*metric.labels, "gateway"), (*labels, gateway), strict=True)
                    where = ",".join(
                        f'{name}="{value.translate(_ESCAPES)}"' for name, value in names
                    )
                    lines += _samples(metric, where, figure)
    return "\n".join([*lines, ""]).encode()


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


_BOUNDS = {
    metric.name: tuple(f'le="{bound}"' for bound in (*map(float, metric.buckets), "+Inf"))
    for metric in CATALOGUE
}


def _samples(metric: Metric, where: str, figure: float | list[float]) -> list[str]:
    name = metric.name
    if not metric.buckets:
        return [] if isinstance(figure, list) else [f"{name}{{{where}}} {figure}"]
    if not isinstance(figure, list) or len(figure) != len(metric.buckets) + 2:
        return []
    counts = list(accumulate(figure[:-1]))
    start = f"{name}_bucket{{{where},"
    buckets = zip(_BOUNDS[name], counts, strict=True)
    return [
        *[f"{start}{bound}}} {count}" for bound, count in buckets],
        f"{name}_count{{{where}}} {counts[-1]}",
        f"{name}_sum{{{where}}} {figure[-1]}",
    ]
