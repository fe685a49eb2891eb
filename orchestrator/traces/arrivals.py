"""Whole traces as lists: read, synthetic, in the time of a replay."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.traces.requests import read_blocks


@dataclass(frozen=True, slots=True)
class Arrival:
    arrival_s: float
    """Seconds since the start of the trace."""
    prompt_tokens: int
    output_tokens: int


def read(path: Path) -> list[Arrival]:
    """All arrivals of a trace. Raises TraceError."""
    return [
        Arrival(*request)
        for block in read_blocks(path)
        for request in zip(
            block.arrival_s.tolist(),
            block.prompt_tokens.tolist(),
            block.output_tokens.tolist(),
            strict=True,
        )
    ]


def synthetic_conversation(duration_s: float, seed: int) -> list[Arrival]:
    """A conversation service of 5.87 requests/s, after the published statistics of Azure's 2023
    trace (Patel et al., Splitwise, ISCA 2024).

    Inter-arrival times are Gamma with a coefficient of variation of 1.08 around a rate that wanders
    between minutes; prompts are log-normal (p50 1024, p90 4076 tokens), outputs are a mixture of
    short and long answers (p50 115, p90 423 tokens).
    """
    random = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    now_s, level, minute = 0.0, 1.0, -1
    while True:
        if int(now_s // 60) != minute:
            minute = int(now_s // 60)
            level = float(np.clip(0.6 * level + 0.4 * random.normal(1, 0.3), 0.55, 1.45))
        shape = 1 / 1.08**2
        now_s += random.gamma(shape, 1 / (5.87 * level * shape))
        if now_s >= duration_s:
            return arrivals
        prompt = min(random.lognormal(math.log(1024), 1.08), 4123)
        output = min(random.lognormal(math.log(115), 1.02), 602)
        arrivals.append(Arrival(now_s, max(1, round(prompt)), max(1, round(output))))


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a replay at one speed."""

    duration_s: float
    """On the clock of the replay."""
    time_scale: float
    """Seconds of the trace that pass in one second."""


def rescale(arrivals: list[Arrival], phases: list[Phase]) -> list[Arrival]:
    """The arrivals in the time of the replay, until the phases or the trace end."""
    placed: list[Arrival] = []
    trace_s = replay_s = 0.0
    remaining = iter(arrivals)
    arrival = next(remaining, None)
    for phase in phases:
        phase_end_s = trace_s + phase.duration_s * phase.time_scale
        while arrival is not None and arrival.arrival_s < phase_end_s:
            at_s = replay_s + (arrival.arrival_s - trace_s) / phase.time_scale
            placed.append(Arrival(at_s, arrival.prompt_tokens, arrival.output_tokens))
            arrival = next(remaining, None)
        trace_s, replay_s = phase_end_s, replay_s + phase.duration_s
    return placed
