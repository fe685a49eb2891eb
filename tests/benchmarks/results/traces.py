"""The traces of the table: what arrives, for whom, and how large the company's own room is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.simulate.run import Arrivals
from orchestrator.traces.requests import Requests, read_blocks
from orchestrator.traces.servegen import clients
from orchestrator.traces.synth import DAY_S, assigned, scaled, synthesize

SERVEGEN_DAYS = 9.0


@dataclass(frozen=True)
class Trace:
    name: str
    files: tuple[str, ...]
    """In the folder of the data."""
    about: str
    owned: int
    """Replicas: what the median minute takes, if their batches are full."""
    shares: Mapping[str, float]
    """By workload, of the requests."""
    draw: Callable[[Sequence[Path], Mapping[str, float], float, int], Iterable[Requests]]
    """From the files, the shares, days at most, and a seed."""
    is_long: bool = False

    def arrivals(
        self, data: Path, workloads: Sequence[str], days: float, seed: int
    ) -> list[Arrivals]:
        """Raises TraceError."""
        numbers = {name: number for number, name in enumerate(workloads)}
        names, shares = list(self.shares), np.array(list(self.shares.values()))
        random = np.random.default_rng(seed)
        found = []
        for block in self.draw([data / name for name in self.files], self.shares, days, seed):
            whose = block.workload or random.choice(names, len(block), p=shares / shares.sum())
            found.append(
                Arrivals(
                    block.arrival_s,
                    np.maximum(block.prompt_tokens, 1.0),
                    np.maximum(block.output_tokens, 1.0),
                    np.array([numbers[name] for name in whose], np.int64),
                )
            )
        return found


def _recorded(
    files: Sequence[Path], shares: Mapping[str, float], days: float, seed: int
) -> Iterable[Requests]:
    return read_blocks(files[0])


def _thinned(share: float) -> Callable[..., Iterable[Requests]]:
    """Each request is kept with this chance."""

    def draw(
        files: Sequence[Path], shares: Mapping[str, float], days: float, seed: int
    ) -> Iterable[Requests]:
        random = np.random.default_rng(seed + 1)
        for block in read_blocks(files[0]):
            kept = random.random(len(block)) < share
            yield Requests(
                block.arrival_s[kept], block.prompt_tokens[kept], block.output_tokens[kept]
            )

    return draw


def _drawn(model: str, rate_rps: float) -> Callable[..., Iterable[Requests]]:
    """Every client's rate by the same factor; each client is one workload's."""

    def draw(
        files: Sequence[Path], shares: Mapping[str, float], days: float, seed: int
    ) -> Iterable[Requests]:
        of = scaled(clients(files[0], files[1], model), rate_rps, 0, SERVEGEN_DAYS * DAY_S)
        to_s = min(days, SERVEGEN_DAYS) * DAY_S
        return synthesize(assigned(of, shares, 0, SERVEGEN_DAYS * DAY_S), 0, to_s, seed)

    return draw


OFFICE = {"assistant": 0.5, "website": 0.25, "records": 0.15, "contracts": 0.1}
SERVEGEN = ("traces/servegen_client_rates.csv.gz", "traces/servegen_client_tokens.csv.gz")
TRACES = (
    Trace(
        "azure-conv",
        ("traces/azure2023_conv.csv.gz",),
        "Azure 2023, conversation, 35 minutes as recorded",
        3,
        OFFICE,
        _recorded,
    ),
    Trace(
        "azure-code",
        ("traces/azure2023_code.csv.gz",),
        "Azure 2023, code completion, 35 minutes as recorded",
        1,
        {"coder": 0.85, "review": 0.15},
        _recorded,
    ),
    Trace(
        "mooncake",
        ("traces/mooncake_conversation.csv.gz",),
        "Mooncake, conversation with long prompts, 40 minutes, one request in four",
        3,
        {"documents": 0.75, "reports": 0.25},
        _thinned(0.25),
    ),
    Trace(
        "servegen-small",
        SERVEGEN,
        "ServeGen m-small, 9 days drawn from its clients' rates, thinned to 16 requests/s",
        1,
        OFFICE,
        _drawn("m-small", 16.0),
        is_long=True,
    ),
    Trace(
        "servegen-large",
        SERVEGEN,
        "ServeGen m-large, 9 days drawn from its clients' rates, thinned to 6 requests/s",
        2,
        OFFICE,
        _drawn("m-large", 6.0),
        is_long=True,
    ),
)
