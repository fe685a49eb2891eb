"""What will arrive by the time that capacity ordered at this moment is there.

The base is the recent rate, moved along the week's shape as far as that is known. Around it lies
what rates turned out to be over what had been forecast, counted apart for lulls, usual times and
peaks: so how sure a forecast is, is measured and not assumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from orchestrator.capacity.load import Load
from orchestrator.policy.arrays import Bools, Floats, Ints
from orchestrator.policy.catalogue import Catalogue

STEP_S = 10.0
WINDOW_STEPS = 3
"""Steps over which a rate is taken: what is shorter is for queues to even out."""
LEVEL_S = 90.0
TOKENS_S = 900.0
"""Time constants of the recent rate, and of lengths."""
USUAL_S = 6 * 3600.0
"""Of the rate that lulls and peaks are told by, and of what forecasts are measured by."""
MOST_STEPS = 180
SLOTS_A_DAY = 288
SLOTS_A_WEEK = 7 * SLOTS_A_DAY
DAY_S = 86_400.0
MOST_SHAPE = 3.0
"""The shape moves a rate by no more than this factor."""
REGIMES = (0.5, 1.5)
"""Of the usual rate: below is a lull, above a peak."""
FLOOR = 0.1
"""Of the usual rate: is added to both sides of a ratio, so that silence has one."""
BINS, BINS_PER_DOUBLING, LOWEST_LOG2 = 81, 8, -4.0
LOG_RATIOS = np.log(2.0) * ((np.arange(BINS) + 0.5) / BINS_PER_DOUBLING + LOWEST_LOG2)
ENOUGH, PLENTY = 30.0, 3000.0
"""Forecasts that were measured: so many of a regime before it is told by its own; and so many
before ratios are taken as they were counted, and not as if their logarithms were normal."""
SHARES = np.array([0.5, 0.25, 0.125, 0.0625, 0.03125, 0.021875, 0.009375])
"""Of the time, from the lowest ratios up: fine where objectives are decided."""
MIDDLES = np.cumsum(SHARES) - SHARES / 2
DEVIATIONS = np.array([NormalDist().inv_cdf(middle) for middle in MIDDLES])
UNMEASURED_SPREAD = 0.2
"""Of a ratio's logarithm, until there are some."""
LEARNED = ("usual", "asked", "answered", "spread", "prompt_spread", "seen", "measured", "shape")
DEFAULT_PROMPT_TOKENS, DEFAULT_OUTPUT_TOKENS = 512.0, 128.0


class Forecast(NamedTuple):
    """Of one workload."""

    rps: tuple[float, ...]
    """Requests a second, for each share of `SHARES`."""
    prompt_tokens: float
    """Mean of a request; so is the next."""
    output_tokens: float
    variation: float = 1.0
    """Of arrivals: the variance of their counts over the mean, 1 for a Poisson process."""
    prompt_variation: float = 2.0
    """The same of their prompt tokens, in ordinary prompts: with that of their lengths."""


def forecaster_of(catalogue: Catalogue, is_steady: bool = False) -> "Forecaster":
    """For as long as the fastest place that can be ordered for a workload takes to come."""
    workloads = list(catalogue.workloads)
    horizons_s = []
    for name in workloads:
        away = (catalogue.burst_candidate(name, pool) for pool in catalogue.burst_pools(name))
        places = [c for c in away if c is not None] or catalogue.home(name)
        horizons_s.append(min((c.pool.provision_s for c in places), default=STEP_S))
    return Forecaster(workloads, horizons_s, is_steady)


@dataclass
class Forecaster:
    """Of all workloads, each for a horizon of its own. Told the load at every tick."""

    workloads: Sequence[str]
    horizons_s: Sequence[float]
    """From an order to a replica that serves, by workload."""
    is_steady: bool = False
    """Whether the load is taken to stay as it is, for certain."""
    _since_s: float | None = None
    _listens: bool = False
    _forecasts: dict[str, Forecast] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.workloads)
        steps = np.ceil(np.array(self.horizons_s, float) / STEP_S).astype(int)
        self._ahead: Ints = np.clip(steps, 1, MOST_STEPS)
        self._counted = np.zeros((4, size))
        """Since the last step: requests, prompt tokens, answers, output tokens."""
        self._recent = np.zeros((WINDOW_STEPS, size))
        self._bases = np.full((MOST_STEPS + 1, size), np.nan)
        """Forecasts that were made, by the step in which they were."""
        self._level, self._usual = np.zeros(size), np.zeros(size)
        # Of one request, until there are some.
        self._asked = np.tile([1.0, DEFAULT_PROMPT_TOKENS], (size, 1))
        """Requests and their prompt tokens, fading; so are answers and their output tokens."""
        self._answered = np.tile([1.0, DEFAULT_OUTPUT_TOKENS], (size, 1))
        self._spread, self._prompt_spread = np.ones(size), np.full(size, 2.0)
        self._steps = 0
        self._seen = np.zeros(size)
        """Steps by which what is usual is known."""
        self._measured = np.zeros((size, len(REGIMES) + 1, BINS))
        self._regimes = np.zeros((MOST_STEPS + 1, size), int)
        self._shape = np.full((size, SLOTS_A_WEEK), np.nan)
        """Requests a second in each slot of the week, before the one that runs."""
        self._slot, self._slot_s, self._slot_requests = 0, 0.0, np.zeros(size)

    def observe(self, load: Mapping[str, Load], now_s: float) -> None:
        """What has arrived since the last call."""
        for number, name in enumerate(self.workloads):
            seen = load.get(name)
            if seen is not None:
                self._counted[:, number] += (
                    seen.requests,
                    seen.prompt_tokens,
                    seen.answered,
                    seen.output_tokens,
                )
        if self._since_s is None:
            self._since_s = now_s
        passed_s = now_s - self._since_s
        if passed_s >= STEP_S:
            # What was counted while nobody listened is told at the beginning.
            if self._listens:
                self._step(passed_s, now_s)
            self._listens = True
            self._since_s = now_s
            self._counted[:] = 0

    def forecasts(self) -> Mapping[str, Forecast]:
        """By workload; none until something is known."""
        return self._forecasts

    def learned(self) -> dict[str, Floats]:
        """What is known of the workloads, by the names of `LEARNED`; the first axis is theirs."""
        return {name: getattr(self, f"_{name}") for name in LEARNED}

    def learn(self, workloads: Sequence[str], learned: Mapping[str, Floats]) -> None:
        """Takes over what one before knew of the same workloads. Raises ValueError where it does
        not fit, and then takes nothing."""
        numbers = {name: number for number, name in enumerate(workloads)}
        taken = {name: np.asarray(learned[name], float) for name in LEARNED}
        for name, given in taken.items():
            own = getattr(self, f"_{name}")
            if given.shape != (len(workloads), *own.shape[1:]):
                raise ValueError(f"{name} has shape {given.shape}")
            known = given[~np.isnan(given)] if name == "shape" else given
            is_divisor = name in ("asked", "answered") and not (given[:, 0] > 0).all()
            if is_divisor or not (np.isfinite(known) & (known >= 0)).all():
                raise ValueError(f"{name} has values that are no rates, lengths or counts")
        for name, given in taken.items():
            own = getattr(self, f"_{name}")
            for number, workload in enumerate(self.workloads):
                if workload in numbers:
                    own[number] = given[numbers[workload]]

    def _step(self, passed_s: float, now_s: float) -> None:
        requests, prompt, *_ = self._counted
        rate = requests / passed_s
        _add(self._asked, self._counted[:2], passed_s)
        _add(self._answered, self._counted[2:], passed_s)
        usual_prompt = np.maximum(self._asked[:, 1] / self._asked[:, 0], 1.0)
        self._recent[self._steps % WINDOW_STEPS] = rate
        window = self._recent[: min(self._steps + 1, WINDOW_STEPS)].mean(axis=0)
        weight = max(1 - np.exp(-passed_s / LEVEL_S), 1 / (self._steps + 1))
        off = requests - self._level * passed_s
        apart = off**2 / np.maximum(self._level * passed_s, 1.0)
        prompts_off = prompt / usual_prompt - self._level * passed_s
        prompts_apart = prompts_off**2 / np.maximum(self._level * passed_s, 1.0)
        if self._steps >= WINDOW_STEPS:
            known, share = self._level > 0, np.maximum(passed_s / TOKENS_S, 1 / (self._seen + 3))
            _approach(self._spread, apart, known, share)
            _approach(self._prompt_spread, prompts_apart, known, share)
        self._level += weight * (rate - self._level)
        self._seen += 1
        usual_weight = np.maximum(1 - np.exp(-passed_s / USUAL_S), 1 / self._seen)
        self._usual += usual_weight * (rate - self._usual)
        self._measure(window, passed_s)
        self._learn_shape(requests, passed_s, now_s)
        base = self._level * (1.0 if self.is_steady else self._shape_ratio(now_s))
        row = self._steps % len(self._bases)
        self._bases[row] = base
        floor = self._usual
        self._regimes[row] = (base[:, None] > np.array(REGIMES) * floor[:, None]).sum(axis=1)
        self._steps += 1
        self._tell(base, self._regimes[row])

    def _measure(self, window: Floats, passed_s: float) -> None:
        """The forecasts that were made for this step."""
        columns = np.arange(len(self.workloads))
        rows = (self._steps - self._ahead) % len(self._bases)
        made = self._bases[rows, columns]
        known = ~np.isnan(made) & (self._steps - self._ahead >= LEVEL_S / STEP_S)
        if not known.any():
            return
        self._measured *= np.exp(-passed_s / (4 * USUAL_S))
        floor = FLOOR * self._usual + 1e-9
        ratio = (window + floor) / (np.where(known, made, 1.0) + floor)
        places = np.clip((np.log2(ratio) - LOWEST_LOG2) * BINS_PER_DOUBLING, 0, BINS - 1)
        regimes = self._regimes[rows, columns]
        self._measured[columns[known], regimes[known], places.astype(int)[known]] += 1

    def _learn_shape(self, requests: Floats, passed_s: float, now_s: float) -> None:
        """A slot's rate is known when it is over."""
        slot = _slot(now_s)
        if slot != self._slot:
            if self._slot_s:
                rate, before = self._slot_requests / self._slot_s, self._shape[:, self._slot]
                self._shape[:, self._slot] = np.where(np.isnan(before), rate, (before + rate) / 2)
            self._slot, self._slot_s = slot, 0.0
            self._slot_requests[:] = 0
        self._slot_requests += requests
        self._slot_s += passed_s

    def _shape_ratio(self, now_s: float) -> Floats:
        """By how much the rate moved until the horizon a week before, else on the days that are
        known."""
        here, ratio = _slot(now_s), np.ones(len(self.workloads))
        for ahead in np.unique(self._ahead):
            there = _slot(now_s + ahead * STEP_S)
            of = self._ahead == ahead
            before, after = self._around(here), self._around(there)
            known = ~np.isnan(before) & ~np.isnan(after)
            week = known[:, 0]
            days = np.maximum(known.sum(axis=1), 1)
            before = np.where(week, before[:, 0], np.where(known, before, 0).sum(axis=1) / days)
            after = np.where(week, after[:, 0], np.where(known, after, 0).sum(axis=1) / days)
            floor = FLOOR * self._usual + 1e-9
            moved = np.clip((after + floor) / (before + floor), 1 / MOST_SHAPE, MOST_SHAPE)
            ratio = np.where(of & known.any(axis=1), moved, ratio)
        return ratio

    def _around(self, slot: int) -> Floats:
        """(workloads, 7) the rates about a slot: of its own day first, then of the others."""
        days = slot + SLOTS_A_DAY * np.arange(7)
        around = (days[:, None] + np.array([-1, 0, 1])) % SLOTS_A_WEEK
        rates: Floats = self._shape[:, around].mean(axis=2)
        return rates

    def _tell(self, base: Floats, regimes: Ints) -> None:
        floor = FLOOR * self._usual
        seen_s = 1 / (WINDOW_STEPS * STEP_S) + 1 / (2 * LEVEL_S)
        noise = np.maximum(self._spread, 1.0) * seen_s / np.maximum(base + floor, 1e-9)
        for number, name in enumerate(self.workloads):
            counts = self._measured[number, regimes[number]]
            if counts.sum() < ENOUGH:
                counts = self._measured[number].sum(axis=0)
            ratios = _quantiles(counts, float(noise[number]))
            if self.is_steady:
                ratios = np.ones(len(SHARES))
            rps = np.maximum((base[number] + floor[number]) * ratios - floor[number], 0.0)
            self._forecasts[name] = Forecast(
                tuple(rps.tolist()),
                float(self._asked[number, 1] / self._asked[number, 0]),
                float(self._answered[number, 1] / self._answered[number, 0]),
                max(float(self._spread[number]), 1.0),
                max(float(self._prompt_spread[number]), 1.0),
            )


def _add(sums: Floats, counted: Floats, passed_s: float) -> None:
    """Old ones fade where there are new ones."""
    sums *= np.where(counted[0] > 0, np.exp(-passed_s / TOKENS_S), 1.0)[:, None]
    sums += counted.T


def _approach(values: Floats, seen: Floats, known: Bools, shares: Floats) -> None:
    values += np.where(known, np.minimum(shares, 1.0) * (seen - values), 0.0)


def _slot(at_s: float) -> int:
    """Of the week."""
    return int(at_s * SLOTS_A_DAY / DAY_S) % SLOTS_A_WEEK


def _quantiles(counts: Floats, noise: float) -> Floats:
    """Ratios at the middles of `SHARES`. `noise`: the part of the variance of their logarithms that
    is from counting, which queues even out and the replicas' model knows of."""
    total = counts.sum()
    if total < ENOUGH:
        return np.exp(UNMEASURED_SPREAD * DEVIATIONS)
    mean = (counts @ LOG_RATIOS) / total
    variance = max(counts @ (LOG_RATIOS - mean) ** 2 / total, 1e-9)
    if total < PLENTY:
        off = np.sqrt(variance) * DEVIATIONS
    else:
        off = LOG_RATIOS[np.searchsorted(np.cumsum(counts), MIDDLES * total)] - mean
    ratios: Floats = np.exp(mean + off * np.sqrt(max(1 - noise / variance, 0.0)))
    return ratios
