"""What a trace is like, in one pass over its blocks."""

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.traces.requests import Requests

GROWTH = 1.01
"""Of the bins of lengths: quantiles are right within half a percent."""


@dataclass(slots=True)
class Lengths:
    """Token counts, as a histogram of their logarithms."""

    count: int = 0
    total: int = 0
    longest: int = 0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, tokens: NDArray[np.int64]) -> None:
        if not len(tokens):
            return
        self.count += len(tokens)
        self.total += int(tokens.sum())
        self.longest = max(self.longest, int(tokens.max()))
        logs = np.rint(np.log(np.maximum(tokens, 1)) / math.log(GROWTH)).astype(np.int64)
        logs[tokens == 0] = -1
        found, counts = np.unique(logs, return_counts=True)
        for place, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.bins[place] += count

    def quantile(self, share: float) -> int:
        below = 0
        for place, count in sorted(self.bins.items()):
            below += count
            if below >= share * self.count:
                return 0 if place < 0 else min(round(GROWTH**place), self.longest)
        return self.longest

    def summary(self) -> dict[str, float]:
        quantiles = {f"p{round(q * 100)}": self.quantile(q) for q in (0.5, 0.9, 0.99)}
        return {"mean": self.total / max(1, self.count), **quantiles, "max": self.longest}


@dataclass(slots=True)
class _Busiest:
    """The most requests in one span of time; spans lie side by side."""

    span_s: float
    most: int = 0
    current: int = -1
    in_current: int = 0

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        spans, counts = np.unique(np.floor(arrival_s / self.span_s), return_counts=True)
        if int(spans[0]) == self.current:
            counts[0] += self.in_current
        self.most = max(self.most, int(counts.max()))
        self.current, self.in_current = int(spans[-1]), int(counts[-1])


@dataclass(slots=True)
class Sides:
    prompt: Lengths = field(default_factory=Lengths)
    output: Lengths = field(default_factory=Lengths)

    def add(self, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> None:
        self.prompt.add(prompt)
        self.output.add(output)

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.prompt.count,
            "prompt_tokens": self.prompt.summary(),
            "output_tokens": self.output.summary(),
        }


@dataclass(slots=True)
class Stats:
    """Memory grows with workloads and with distinct prefix blocks, and with nothing else."""

    all: Sides = field(default_factory=Sides)
    workloads: dict[str, Sides] = field(default_factory=dict)
    first_s: float = 0.0
    last_s: float = 0.0
    second: _Busiest = field(default_factory=lambda: _Busiest(1))
    minute: _Busiest = field(default_factory=lambda: _Busiest(60))
    gap_squares: float = 0.0
    blocks: int = 0
    """Prefix blocks of all prompts; None of the requests names any where it is 0."""
    seen: set[int] = field(default_factory=set)
    """Hashes of the ids of blocks."""

    def add(self, requests: Requests) -> None:
        if not len(requests):
            return
        at_s = requests.arrival_s
        if not self.all.prompt.count:
            self.first_s = self.last_s = float(at_s[0])
        gaps_s = np.diff(at_s, prepend=self.last_s)
        self.gap_squares += float((gaps_s**2).sum())
        self.last_s = float(at_s[-1])
        self.second.add(at_s)
        self.minute.add(at_s)
        self.all.add(requests.prompt_tokens, requests.output_tokens)
        if requests.workload is not None:
            names, places = np.unique(np.array(requests.workload), return_inverse=True)
            for place, name in enumerate(names.tolist()):
                rows = places == place
                self.workloads.setdefault(name, Sides()).add(
                    requests.prompt_tokens[rows], requests.output_tokens[rows]
                )
        if requests.hash_ids is not None:
            ids = list(map(hash, chain.from_iterable(map(str.split, requests.hash_ids))))
            self.blocks += len(ids)
            self.seen.update(ids)

    def summary(self) -> dict[str, Any]:
        """JSON's values; None where a trace does not say."""
        gaps, span_s = self.all.prompt.count - 1, self.last_s - self.first_s
        cv = rate_rps = None
        if gaps > 0 and span_s > 0:
            rate_rps = gaps / span_s
            mean_s = span_s / gaps
            cv = math.sqrt(max(0.0, self.gap_squares / gaps - mean_s**2)) / mean_s
        return {
            **self.all.summary(),
            "duration_s": span_s,
            "mean_rate_rps": rate_rps,
            "busiest_second_requests": self.second.most,
            "busiest_minute_requests": self.minute.most,
            "inter_arrival_cv": cv,
            "workloads": {n: s.summary() for n, s in sorted(self.workloads.items())},
            "prefix_blocks": self.blocks or None,
            "prefix_blocks_seen_before_share": 1 - len(self.seen) / self.blocks
            if self.blocks
            else None,
        }
