"""A workload whose budget is spent stays at home."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    if not q.is_burst_pool:
        return None
    left = q.snapshot.budget_left_usd.get(q.workload.name)
    if left is None or left > 0:
        return None
    return f"today's budget of workload '{q.workload.name}' is spent"
