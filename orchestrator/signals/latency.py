"""Latency quantiles over a sliding window.

DDSketch (Masson, Rim, Lee, VLDB 2019) keeps quantiles within 1 % relative error and merges, so a
window is the merge of one sketch per tick.
"""

from collections import deque
from collections.abc import Iterable

from ddsketch import DDSketch


class LatencyWindow:
    """Quantiles and mean of what was added within the last `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._sketches: deque[tuple[float, DDSketch]] = deque()

    def add(self, values_s: Iterable[float], now_s: float) -> None:
        sketch = DDSketch()
        for value in values_s:
            sketch.add(value)
        if sketch.count:
            self._sketches.append((now_s, sketch))

    def merged(self, now_s: float, lower_bounds_s: Iterable[float] = ()) -> DDSketch:
        """The window as one sketch. `lower_bounds_s` are the ages of requests still waiting: they
        count as if they ended now, or a stalled pool would look fast for having no results."""
        while self._sketches and self._sketches[0][0] < now_s - self.window_s:
            self._sketches.popleft()
        merged = DDSketch()
        for _, sketch in self._sketches:
            merged.merge(sketch)
        for value in lower_bounds_s:
            merged.add(value)
        return merged


def quantile(sketch: DDSketch, q: float) -> float | None:
    """None when the sketch is empty: no data is not zero."""
    value = sketch.get_quantile_value(q)
    return None if value is None else float(value)


def mean(sketch: DDSketch) -> float | None:
    return float(sketch.sum / sketch.count) if sketch.count else None
