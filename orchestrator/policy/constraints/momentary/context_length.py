"""A variant can take no more tokens than its context holds."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools | None:
    tokens = q.facts.max_tokens
    if tokens <= q.selection.shortest_model_len:
        return None
    result: Bools = q.selection.max_model_len >= tokens
    return result


def sentence(q: Question, position: int) -> str:
    limit = q.selection.candidates[position].variant.max_model_len
    return f"{q.facts.max_tokens} tokens are asked for; the context holds {limit}"
