"""An endpoint that has all that keeps it busy gets no more: what comes waits in the gateway, where
it goes by importance, and to whatever endpoint has room first. The rest of an answer that has begun
waits for nobody."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools | None:
    if q.facts.variant:
        return None
    result: Bools = q.load <= q.room
    return result


def sentence(q: Question, position: int) -> str:
    return (
        f"{q.load[position] - 1:.0f} requests are open there; its {q.slots[position]:.0f} slots "
        "and a short backlog are full"
    )
