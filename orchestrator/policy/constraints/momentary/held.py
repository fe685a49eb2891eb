"""A pool that somebody has drained, or that is about to be lost, takes no request."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question
from orchestrator.policy.snapshot import Hold


def feasible(q: Question) -> Bools | None:
    held = q.view.held
    return None if held is None else ~held.take(q.selection.numbers)


def sentence(q: Question, position: int) -> str:
    pool = q.selection.candidates[position].pool.name
    if q.view.snapshot.holds.get(pool) is Hold.LEAVING:
        return f"the replicas of pool '{pool}' are about to be lost"
    return f"pool '{pool}' is drained; 'pools resume {pool}' ends that"
