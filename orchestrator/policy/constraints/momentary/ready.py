"""A request goes only where a replica serves."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools:
    result: Bools = q.ready.astype(bool)
    return result


def sentence(q: Question, position: int) -> str:
    return f"no replica of '{q.selection.candidates[position].endpoint}' is ready"
