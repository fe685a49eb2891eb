"""A burst pool takes part only while the workload bursts to it."""

from orchestrator.policy.question import Question
from orchestrator.policy.snapshot import BurstPhase, BurstState

HOME = BurstState()


def check(q: Question) -> str | None:
    if not q.is_burst_pool:
        return None
    state = q.snapshot.bursts.get(q.workload.name, HOME)
    if state.phase is BurstPhase.BURSTING and state.pool == q.candidate.pool.name:
        return None
    return f"workload '{q.workload.name}' is {state.phase.value}: {state.reason}"
