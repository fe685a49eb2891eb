"""How long the request would wait for a slot, as a share of its TTFT objective."""

from orchestrator.policy.question import Question

DEFAULT_SLOT_S = 1.0
"""Assumed until the first requests have been measured."""


def expected_wait_s(q: Question) -> float:
    """Wait for a free slot under first come, first served: requests ahead over service rate."""
    slots = q.state.ready_replicas * q.candidate.variant.max_num_seqs
    if slots == 0:
        return float("inf")
    ahead = q.load + 1 - slots
    if ahead <= 0:
        return 0.0
    slot_s = q.state.slot_s if q.state.slot_s is not None else DEFAULT_SLOT_S
    return ahead * slot_s / slots


def score(q: Question) -> float:
    return expected_wait_s(q) / q.workload.slo.ttft_p95_s
