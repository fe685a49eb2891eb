"""Latency quantiles over a sliding window.

DDSketch (Masson, Rim, Lee, VLDB 2019) keeps quantiles within 1 % relative error and merges, so a
window is the merge of a few sketches, one for each slice of time, however many gateways report.
"""

from collections import deque
from collections.abc import Iterable

from ddsketch import DDSketch

SLICES = 10
"""Of a window: what was added leaves it by slices."""


class LatencyWindow:
    """Quantiles and mean of what was added within the last `window_s` seconds, and up to a slice of
    it longer."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._slices: deque[tuple[float, DDSketch]] = deque()
        """Since when each gathers."""
        self._full = DDSketch()
        """All slices but the last, which alone gathers."""

    def add(self, values_s: Iterable[float], now_s: float) -> None:
        values = list(values_s)
        if not values:
            return
        if not self._slices or now_s - self._slices[-1][0] >= self.window_s / SLICES:
            self._slices.append((now_s, DDSketch()))
            self._merge_full()
        sketch = self._slices[-1][1]
        for value in values:
            sketch.add(value)

    def merged(self, now_s: float, lower_bounds_s: Iterable[float] = ()) -> DDSketch:
        """The window as one sketch. `lower_bounds_s` are the ages of requests still waiting: they
        count as if they ended now, or a stalled pool would look fast for having no results."""
        horizon_s = now_s - self.window_s * (1 + 1 / SLICES)
        if self._slices and self._slices[0][0] < horizon_s:
            while self._slices and self._slices[0][0] < horizon_s:
                self._slices.popleft()
            self._merge_full()
        merged = DDSketch()
        merged.merge(self._full)
        if self._slices:
            merged.merge(self._slices[-1][1])
        for value in lower_bounds_s:
            merged.add(value)
        return merged

    def _merge_full(self) -> None:
        self._full = DDSketch()
        for _, sketch in list(self._slices)[:-1]:
            self._full.merge(sketch)


def quantile(sketch: DDSketch, q: float) -> float | None:
    """None when the sketch is empty: no data is not zero."""
    value = sketch.get_quantile_value(q)
    return None if value is None else float(value)


def mean(sketch: DDSketch) -> float | None:
    return float(sketch.sum / sketch.count) if sketch.count else None
