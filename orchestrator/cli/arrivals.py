"""Traces as the simulator takes them: with a workload for each request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.cli.shares import read_shares
from orchestrator.config.spec import Configuration
from orchestrator.policy.arrays import Ints
from orchestrator.simulate.run import Arrivals
from orchestrator.traces.arrivals import synthetic_conversation
from orchestrator.traces.requests import Requests, TraceError, read_blocks

SYNTHETIC_S = 600
LATEST_BEGIN_S = 86_400.0
"""Nobody waits for simulated days without a request: such times count from somewhere else."""


def arrivals(
    path: Path | None, workloads: Sequence[str], mix: Mapping[str, float], seed: int
) -> Iterator[Arrivals]:
    """A CSV of `arrival_s,prompt_tokens,output_tokens`; none: a synthetic conversation service.
    Whose a request is stands in a column `workload`; without one it goes by shares. Raises
    TraceError.
    """
    random = np.random.default_rng(seed)
    shares = np.array([mix.get(name, 0.0) for name in workloads])
    numbers = {name: number for number, name in enumerate(workloads)}
    has_begun = False
    for block in read_blocks(path, frozenset(workloads)) if path else [_synthetic(seed)]:
        if not has_begun and len(block) and block.arrival_s[0] > LATEST_BEGIN_S:
            raise TraceError(
                f"{path}:2: the first request comes after {block.arrival_s[0]:g} s; write seconds "
                "since the beginning of the trace"
            )
        has_begun = has_begun or len(block) > 0
        if block.workload is not None:
            groups: Ints = np.array([numbers[name] for name in block.workload], np.int64)
        else:
            groups = random.choice(len(workloads), len(block), p=shares / shares.sum())
        # What nothing is asked of, or answered with, still takes a step of the engine.
        yield Arrivals(
            block.arrival_s,
            np.maximum(block.prompt_tokens, 1.0),
            np.maximum(block.output_tokens, 1.0),
            groups,
        )


@dataclass(frozen=True)
class Trace:
    """`arrivals`, read anew by whoever goes through them: memory does not grow with a trace."""

    path: Path | None
    workloads: Sequence[str]
    mix: Mapping[str, float]
    seed: int

    def __iter__(self) -> Iterator[Arrivals]:
        return arrivals(self.path, self.workloads, self.mix, self.seed)


def _synthetic(seed: int) -> Requests:
    read = synthetic_conversation(SYNTHETIC_S, seed)
    return Requests(
        np.array([a.arrival_s for a in read]),
        np.array([a.prompt_tokens for a in read]),
        np.array([a.output_tokens for a in read]),
    )


def read_mix(text: str, configuration: Configuration) -> dict[str, float]:
    """Shares by workload; none given: equal among those that ask for text. Raises ValueError."""
    if not text:
        mix = dict.fromkeys(generating(configuration), 1.0)
        if not mix:
            raise ValueError("no workload asks for a model that generates; name some with --mix")
        return mix
    names = [w.name for w in configuration.workloads]
    mix = read_shares("--mix", text)
    for name in mix:
        if name not in names:
            raise ValueError(f"--mix: no workload '{name}'; there are: {', '.join(names)}")
    return mix


def generating(configuration: Configuration) -> list[str]:
    """Workloads that ask for text."""
    models = {m.name for m in configuration.models if any(v.task == "generate" for v in m.variants)}
    return [w.name for w in configuration.workloads if w.models[0] in models]
