"""From what was timed to the figures of `performance`, with what they miss.

The model is the one by which places are scored and fleets simulated: a prompt takes its tokens over
`prefill_tokens_per_s`, and the inter-token latency grows evenly from that of one sequence alone to
that with all sequences busy. What every request costs besides, whatever its length, is told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from orchestrator.config.spec import Performance

MIN_TOKENS = 8
"""Of each sequence, while all run: fewer say nothing of its pace."""
DIGITS = 4
"""That figures have: more would be noise."""


class ProfileError(Exception):
    """What cannot be measured, and the mend."""


@dataclass(frozen=True, slots=True)
class Read:
    """A prompt that was read alone."""

    length: int
    """About so many tokens were meant: reads of one length are compared."""
    prompt_tokens: int
    took_s: float
    """Until its first token."""


Timeline = list[tuple[float, int]]
"""Of a stream: when it had how many tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that went on at once."""

    sequences: int
    itl_s: float
    """Of each of them."""

    @property
    def tokens_per_s(self) -> float:
        return self.sequences / self.itl_s


@dataclass(frozen=True, slots=True)
class Prefill:
    tokens_per_s: float
    overhead_s: float
    """What a request takes besides, whatever its length."""

    def took_s(self, prompt_tokens: float) -> float:
        return self.overhead_s + prompt_tokens / self.tokens_per_s


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement, and what the figures say in its place."""

    at: float
    """Prompt tokens, or sequences."""
    measured_s: float
    fitted_s: float

    @property
    def error(self) -> float:
        """A share of what was measured."""
        return self.fitted_s / self.measured_s - 1


def batch_of(timelines: Sequence[Timeline]) -> Batch:
    """Of streams, while all of them ran. Raises ProfileError where that was too short."""
    start_s = max(t[0][0] for t in timelines)
    end_s = min(t[-1][0] for t in timelines)
    tokens_per_s = 0.0
    for timeline in timelines:
        inside = [(at_s, tokens) for at_s, tokens in timeline if start_s <= at_s <= end_s]
        tokens = inside[-1][1] - inside[0][1] if inside else 0
        if tokens < MIN_TOKENS or inside[-1][0] <= inside[0][0]:
            raise ProfileError(
                f"{len(timelines)} streams at once said fewer than {MIN_TOKENS} tokens each while "
                "all ran; give more --seconds, or an engine with a longer context"
            )
        tokens_per_s += tokens / (inside[-1][0] - inside[0][0])
    return Batch(len(timelines), len(timelines) / tokens_per_s)


def prefill_of(reads: Sequence[Read]) -> Prefill:
    """By the median of the slopes between any two reads, each weighted by how far it reaches: one
    that is far off changes little. Raises ProfileError where time does not rise with length."""
    slopes = []
    for a, b in combinations(sorted(reads, key=lambda r: r.prompt_tokens), 2):
        further = b.prompt_tokens - a.prompt_tokens
        if a.length != b.length and further > 0:
            slopes.append(((b.took_s - a.took_s) / further, further))
    s_per_token = _weighted_median(slopes) if slopes else 0.0
    if s_per_token <= 0:
        raise ProfileError(
            "longer prompts take no longer: the endpoint does not read them, or has read them "
            "before; profile the engine itself, at rest"
        )
    overhead_s = median(r.took_s - r.prompt_tokens * s_per_token for r in reads)
    if overhead_s < 0:
        # Long prompts cost more by the token than short ones: no line says so.
        return Prefill(1 / median(r.took_s / r.prompt_tokens for r in reads), 0.0)
    return Prefill(1 / s_per_token, overhead_s)


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    half = sum(weight for _, weight in values) / 2
    for value, weight in sorted(values):
        half -= weight
        if half <= 0:
            return value
    raise ValueError("of nothing")


@dataclass(frozen=True, slots=True)
class Profile:
    """`batches`: the first is of one sequence, the last of all that the engine takes."""

    reads: Sequence[Read]
    batches: Sequence[Batch]
    kv_cache_tokens: int | None = None

    def prefill(self) -> Prefill:
        return prefill_of(self.reads)

    def performance(self, accelerator: str, source: str) -> Performance:
        return Performance(
            accelerator=accelerator,
            prefill_tokens_per_s=_rounded(self.prefill().tokens_per_s),
            decode_tokens_per_s=_rounded(self.batches[-1].tokens_per_s),
            itl_s=_rounded(self.batches[0].itl_s),
            overhead_s=_rounded(self.prefill().overhead_s),
            kv_cache_tokens=self.kv_cache_tokens,
            source=source,
        )

    def read_points(self) -> list[Point]:
        """By length, the medians."""
        prefill, points = self.prefill(), []
        for length in sorted({r.length for r in self.reads}):
            mine = [r for r in self.reads if r.length == length]
            tokens = median(r.prompt_tokens for r in mine)
            points.append(Point(tokens, median(r.took_s for r in mine), prefill.took_s(tokens)))
        return points

    def batch_points(self) -> list[Point]:
        alone, full = self.batches[0], self.batches[-1]
        more_s = (full.itl_s - alone.itl_s) / max(full.sequences - 1, 1)
        return [
            Point(b.sequences, b.itl_s, alone.itl_s + (b.sequences - 1) * more_s)
            for b in self.batches
        ]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
