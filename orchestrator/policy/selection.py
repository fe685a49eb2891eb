"""Where the requests of one workload, model and data class may ever run.

Depends on the configuration alone, so it is worked out once; what a decision adds is the moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Workload
from orchestrator.policy.arrays import Bools, Floats, Ints
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.constraints.lasting import LASTING, Placement


@dataclass(frozen=True, slots=True)
class Rejection:
    candidate: Candidate
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Arrays have one element for each of `candidates`."""

    workload: Workload
    candidates: tuple[Candidate, ...]
    """Those that no lasting constraint rejects, in the order in which ties are broken."""
    rejected: tuple[Rejection, ...]
    digest: bytes
    """Of both."""
    numbers: Ints
    """Their numbers in the catalogue."""
    position: dict[str, int]
    """By endpoint."""
    max_model_len: Ints
    shortest_model_len: int
    home: tuple[str, ...]
    """Endpoints where the workload runs when it does not burst."""
    while_at_home: Bools
    while_bursting: dict[str, Bools]
    """Who takes part while the workload bursts to a pool, by that pool."""
    metered: Bools | None
    """What a request there costs is paid for that request: burst pools, and prices by the token.
    None when nothing is."""
    paid_for: Bools
    """The others."""
    outside_preferred: Floats | None
    """1 outside the preferred zones; None when it would be the same for all."""
    prefill_s_per_token: Floats
    itl_alone_s: Floats
    """Of one sequence alone."""
    itl_growth_s: Floats
    """What is added to it with all sequences of a replica busy. All three 0 where not known."""


def select(
    workload: Workload,
    data_class: DataClass,
    smaller_variant: bool,
    candidates: Iterable[Candidate],
) -> Selection:
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    for candidate in candidates:
        placement = Placement(workload, data_class, smaller_variant, candidate)
        for code, check in LASTING:
            sentence = check(placement)
            if sentence is not None:
                rejected.append(Rejection(candidate, code, sentence))
                break
        else:
            kept.append(candidate)
    away = workload.burst.pools if workload.burst else []
    burst = np.array([c.pool.name in away for c in kept], bool)
    metered = burst | np.array([c.pool.price.tokens is not None for c in kept], bool)
    outside = np.array([c.zone.name not in workload.preferred_zones for c in kept], float)
    return Selection(
        workload=workload,
        candidates=tuple(kept),
        rejected=tuple(rejected),
        digest=_digest(kept, rejected),
        numbers=np.array([c.number for c in kept], np.int64),
        position={c.endpoint: position for position, c in enumerate(kept)},
        max_model_len=np.array([c.variant.max_model_len for c in kept], np.int64),
        shortest_model_len=min((c.variant.max_model_len for c in kept), default=0),
        home=tuple(c.endpoint for c in kept if c.pool.name not in away),
        while_at_home=~burst,
        while_bursting={
            pool: ~burst | np.array([c.pool.name == pool for c in kept], bool) for pool in away
        },
        metered=metered if metered.any() else None,
        paid_for=~metered,
        outside_preferred=outside if 0 < outside.sum() < len(kept) else None,
        prefill_s_per_token=np.array(
            [1 / c.performance.prefill_tokens_per_s if c.performance else 0 for c in kept]
        ),
        itl_alone_s=np.array([c.performance.itl_s if c.performance else 0 for c in kept]),
        itl_growth_s=np.array([_itl_growth_s(c) for c in kept]),
    )


def _digest(kept: list[Candidate], rejected: list[Rejection]) -> bytes:
    lines = [*(c.endpoint for c in kept), *(f"{r.candidate.endpoint} {r.code}" for r in rejected)]
    return blake2b("\n".join(lines).encode(), digest_size=16).digest()


def _itl_growth_s(candidate: Candidate) -> float:
    performance = candidate.performance
    if performance is None:
        return 0.0
    return candidate.variant.max_num_seqs / performance.decode_tokens_per_s - performance.itl_s
