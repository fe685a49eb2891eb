"""Traces as the simulator takes them: with a workload for each request."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from orchestrator.cli.requests import named_workloads
from orchestrator.config.spec import Configuration
from orchestrator.policy.arrays import Floats, Ints
from orchestrator.replay import trace as traces
from orchestrator.replay.trace import TraceError
from orchestrator.simulate.run import Arrivals

SYNTHETIC_S = 600


def arrivals(
    path: Path | None, workloads: Sequence[str], mix: Mapping[str, float], seed: int
) -> Iterator[Arrivals]:
    """A CSV of `arrival_s,prompt_tokens,output_tokens`; none: a synthetic conversation service.
    Whose a request is stands in a column `workload`; without one it goes by shares. Raises
    TraceError.
    """
    read = traces.read(path) if path else traces.synthetic_conversation(SYNTHETIC_S, seed)
    named = named_workloads(path) if path else []
    groups = (
        _numbers(path, named, workloads) if path and named else _drawn(workloads, mix, seed, read)
    )
    yield Arrivals(
        np.array([a.arrival_s for a in read]),
        _at_least_one(a.prompt_tokens for a in read),
        _at_least_one(a.output_tokens for a in read),
        groups,
    )


def read_mix(text: str, configuration: Configuration) -> dict[str, float]:
    """Shares by workload; none given: equal among those that ask for text. Raises ValueError."""
    if not text:
        generating = {
            m.name for m in configuration.models if any(v.task == "generate" for v in m.variants)
        }
        mix = {w.name: 1.0 for w in configuration.workloads if w.models[0] in generating}
        if not mix:
            raise ValueError("no workload asks for a model that generates; name some with --mix")
        return mix
    names = [w.name for w in configuration.workloads]
    mix = {}
    for part in text.split(","):
        name, _, share = (word.strip() for word in part.partition("="))
        if name not in names:
            raise ValueError(f"--mix: no workload '{name}'; there are: {', '.join(names)}")
        if name in mix:
            raise ValueError(f"--mix: '{name}' stands there twice; add its shares")
        try:
            mix[name] = float(share)
        except ValueError:
            raise ValueError(f"--mix: write '{part}' as WORKLOAD=SHARE") from None
    if not all(0 <= share < np.inf for share in mix.values()) or not any(mix.values()):
        raise ValueError("--mix: shares must be finite, 0 or more, and one above 0")
    return mix


def _numbers(path: Path, named: list[tuple[int, str]], workloads: Sequence[str]) -> Ints:
    numbers = {name: number for number, name in enumerate(workloads)}
    for line, workload in named:
        if workload not in numbers:
            raise TraceError(
                f"{path}:{line}: no workload '{workload}'; there are: {', '.join(workloads)}"
            )
    return np.array([numbers[workload] for _, workload in named], np.int64)


def _drawn(
    workloads: Sequence[str], mix: Mapping[str, float], seed: int, read: Sequence[object]
) -> Ints:
    shares = np.array([mix.get(name, 0.0) for name in workloads])
    random = np.random.default_rng(seed)
    drawn: Ints = random.choice(len(workloads), len(read), p=shares / shares.sum())
    return drawn


def _at_least_one(tokens: Iterable[int]) -> Floats:
    """What nothing is asked of, or answered with, still takes a step of the engine."""
    counts: Floats = np.maximum(np.fromiter(tokens, float), 1.0)
    return counts
