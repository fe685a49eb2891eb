"""Figures by their labels: counted in the event loop's thread at the cost of a look-up, put into
Prometheus' format when somebody asks.

`prometheus_client`'s own counters take a lock and a chain of calls for each figure.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric as Family
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from orchestrator.gateway.metrics import CATALOGUE, MAX_SERIES, OVERFLOW, Metric

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
    """The states of gateways, by their ids, in Prometheus' text format. What a state has in another
    shape than this version's is left out."""
    return generate_latest(_Families(states))


class _Families(Collector):
    def __init__(self, states: Mapping[str, State]) -> None:
        self._states = states

    def collect(self) -> Iterator[Family]:
        for metric in CATALOGUE:
            family = _FAMILIES[metric.kind](
                metric.name, metric.help, labels=[*metric.labels, "gateway"]
            )
            for gateway, state in self._states.items():
                _add(family, metric, gateway, state.get(metric.name, ()))
            yield family


_FAMILIES: dict[str, Callable[..., Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _add(
    family: Family,
    metric: Metric,
    gateway: str,
    figures: Iterable[tuple[Sequence[str], float | list[float]]],
) -> None:
    for labels, figure in figures:
        if len(labels) != len(metric.labels):
            continue
        values = [*labels, gateway]
        if isinstance(family, HistogramMetricFamily):
            if isinstance(figure, list) and len(figure) == len(metric.buckets) + 2:
                bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
                counts = accumulate(figure[:-1])
                family.add_metric(values, list(zip(bounds, counts, strict=True)), figure[-1])
        elif isinstance(figure, int | float):
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            family.add_metric(values, figure)
