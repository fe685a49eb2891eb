"""A workload whose budget is spent stays where its requests cost nothing more."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools | None:
    left = q.view.snapshot.budget_left_usd.get(q.selection.workload.name)
    return None if left is None or left > 0 else q.selection.paid_for


def sentence(q: Question, position: int) -> str:
    return f"today's budget of workload '{q.selection.workload.name}' is spent"
