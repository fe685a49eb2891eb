"""Traces drawn from figures, as ServeGen does it: every client is a process of its own.

A client has, for each window of ten minutes, a rate, the family and coefficient of variation of its
inter-arrival times, and lengths. A window is drawn from the seed and its own number alone, in
equilibrium, so the expected number of its requests is its rate times its length, and a stretch of
a trace holds the same requests as the whole trace does there. Prompt and output lengths are
independent of each other.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from orchestrator.traces.requests import BLOCK_ROWS, Requests

WINDOW_S = 600.0
DAY_S = 86_400.0
PEAK_HOUR = 14
PEAK_TO_LOW = 11.7
"""Of the requests by hour of the day in BurstGPT (Wang et al., KDD 2025)."""

Family = Literal["Gamma", "Weibull"]


class Lengths(Protocol):
    def draw(
        self, random: Generator, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths by their median and 90th percentile."""

    prompt_p50: float
    prompt_p90: float
    output_p50: float
    output_p90: float

    def draw(self, random: Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sides = ((self.prompt_p50, self.prompt_p90), (self.output_p50, self.output_p90))
        prompt, output = (
            _whole(random.lognormal(math.log(p50), math.log(p90 / p50) / Z_P90, count))
            for p50, p90 in sides
        )
        return prompt, output


Z_P90 = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Lengths by quantiles, interpolated between their logarithms: lengths have long tails."""

    levels: tuple[float, ...]
    """From 0 to 1, ascending."""
    prompt_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]

    def draw(self, random: Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        prompt, output = (
            _whole(np.exp(np.interp(random.random(count), self.levels, np.log(np.maximum(q, 1)))))
            for q in (self.prompt_tokens, self.output_tokens)
        )
        return prompt, output


def _whole(lengths: NDArray[np.float64]) -> NDArray[np.int64]:
    """Every request has a token to read and one to write."""
    return np.clip(np.rint(lengths), 1, 2**31).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Window:
    rate_rps: float
    family: Family
    cv: float
    """Of the inter-arrival times. Gaps that vary more than a window of this rate can show are drawn
    with the most that it can: the square root of its number of requests."""
    lengths: Lengths


@dataclass(frozen=True, slots=True)
class Client:
    windows: Mapping[int, Window]
    """By number: window 0 begins at 0 s."""
    workloads: tuple[tuple[str, float], ...] = ()
    """Names and shares; a client of several draws one for every request."""


def synthesize(
    clients: Sequence[Client], from_s: float, to_s: float, seed: int
) -> Iterator[Requests]:
    """The requests between two times of the clients' clock, in order; times count from `from_s`."""
    for number in range(math.floor(from_s / WINDOW_S), math.ceil(to_s / WINDOW_S)):
        window = _window(clients, number, np.random.default_rng((seed, number)))
        if window is None:
            continue
        at_s, prompt, output, names = window
        at_s = at_s + number * WINDOW_S
        first, end = np.searchsorted(at_s, (from_s, to_s))
        for begin in range(int(first), int(end), BLOCK_ROWS):
            rows = slice(begin, min(begin + BLOCK_ROWS, int(end)))
            yield Requests(
                at_s[rows] - from_s,
                prompt[rows],
                output[rows],
                tuple(names[rows].tolist()) if names is not None else None,
            )


_Columns = tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.object_] | None
]


def _window(clients: Sequence[Client], number: int, random: Generator) -> _Columns | None:
    """The requests of all clients in one window, by time since its start."""
    times, prompts, outputs, names = [], [], [], []
    for client in clients:
        window = client.windows.get(number)
        if window is None or window.rate_rps <= 0:
            continue
        at_s = _arrivals(random, window)
        prompt, output = window.lengths.draw(random, len(at_s))
        times.append(at_s)
        prompts.append(prompt)
        outputs.append(output)
        if client.workloads:
            names.append(_names(random, client.workloads, len(at_s)))
    if not times:
        return None
    at_s = np.concatenate(times)
    order = np.argsort(at_s, kind="stable")
    return (
        at_s[order],
        np.concatenate(prompts)[order],
        np.concatenate(outputs)[order],
        np.concatenate(names)[order] if names else None,
    )


def _names(
    random: Generator, workloads: Sequence[tuple[str, float]], count: int
) -> NDArray[np.object_]:
    names = np.array([name for name, _ in workloads], dtype=object)
    if len(names) == 1:
        return np.repeat(names, count)
    shares = np.cumsum([share for _, share in workloads])
    chosen = np.searchsorted(shares, random.random(count) * shares[-1], side="right")
    drawn: NDArray[np.object_] = names[np.minimum(chosen, len(names) - 1)]
    return drawn


def _arrivals(random: Generator, window: Window) -> NDArray[np.float64]:
    """A renewal process in equilibrium: the first gap is what is left of one that began before, so
    it is drawn by length."""
    expected = window.rate_rps * WINDOW_S
    cv = min(window.cv, math.sqrt(max(1.0, expected)))
    shape = _shape(window.family, cv)
    mean_s = 1 / window.rate_rps
    if window.family == "Gamma":
        first_s = random.gamma(shape + 1) * mean_s / shape
    else:
        scale_s = mean_s / math.gamma(1 + 1 / shape)
        first_s = scale_s * random.gamma(1 + 1 / shape) ** (1 / shape)
    last_s = first_s * random.random()
    parts = [np.array([last_s])]
    while last_s < WINDOW_S:
        left = expected * (1 - last_s / WINDOW_S)
        count = int(left + 2 * cv * math.sqrt(left)) + 16
        if window.family == "Gamma":
            gaps_s = random.gamma(shape, mean_s / shape, count)
        else:
            gaps_s = random.weibull(shape, count) * scale_s
        parts.append(last_s + np.cumsum(gaps_s))
        last_s = float(parts[-1][-1])
    at_s = np.concatenate(parts)
    inside: NDArray[np.float64] = at_s[: np.searchsorted(at_s, WINDOW_S)]
    return inside


_WEIBULL_SHAPES = np.geomspace(50, 0.1, 4000)
_WEIBULL_CVS = np.array(
    [math.sqrt(math.gamma(1 + 2 / k) / math.gamma(1 + 1 / k) ** 2 - 1) for k in _WEIBULL_SHAPES]
)


def _shape(family: Family, cv: float) -> float:
    if family == "Gamma":
        return 1 / max(cv, 1e-3) ** 2
    return float(np.interp(cv, _WEIBULL_CVS, _WEIBULL_SHAPES))


def steady(
    rate_rps: float, cv: float, lengths: Lengths, to_s: float, daily: bool = False
) -> Client:
    """One client with Gamma gaps; `daily`, its rate follows the hour of the day around its mean,
    highest in the afternoon, lowest at night, from midnight on."""
    swing = (PEAK_TO_LOW - 1) / (PEAK_TO_LOW + 1) if daily else 0.0
    windows = {}
    for number in range(math.ceil(to_s / WINDOW_S)):
        of_day = ((number + 0.5) * WINDOW_S - PEAK_HOUR * 3600) / DAY_S
        level = 1 + swing * math.cos(2 * math.pi * of_day)
        windows[number] = Window(rate_rps * level, "Gamma", cv, lengths)
    return Client(windows)


def scaled(clients: Sequence[Client], rate_rps: float, from_s: float, to_s: float) -> list[Client]:
    """Clients that make this mean rate together over that time: each rate is multiplied by the same
    factor, and every coefficient of variation stays. Raises ValueError where nobody asks then."""
    mean_rps = sum(_requests(c, from_s, to_s) for c in clients) / (to_s - from_s)
    if mean_rps <= 0:
        raise ValueError("no client has requests in that time")
    factor = rate_rps / mean_rps
    return [
        replace(
            client,
            windows={
                n: replace(w, rate_rps=w.rate_rps * factor) for n, w in client.windows.items()
            },
        )
        for client in clients
    ]


def assigned(
    clients: Sequence[Client], shares: Mapping[str, float], from_s: float, to_s: float
) -> list[Client]:
    """Each client with one workload: the one that lacks most of its share of the requests, the
    busiest client first."""
    requests = [_requests(client, from_s, to_s) for client in clients]
    total = sum(requests) / sum(shares.values())
    lacking = {name: share * total for name, share in shares.items()}
    result = list(clients)
    for number in sorted(range(len(clients)), key=lambda n: -requests[n]):
        name = max(lacking, key=lacking.__getitem__)
        lacking[name] -= requests[number]
        result[number] = replace(clients[number], workloads=((name, 1.0),))
    return result


def _requests(client: Client, from_s: float, to_s: float) -> float:
    """Expected between two times."""
    return sum(
        window.rate_rps * max(0.0, min(to_s, (n + 1) * WINDOW_S) - max(from_s, n * WINDOW_S))
        for n, window in client.windows.items()
    )
