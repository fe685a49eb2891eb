"""A request goes only where a replica serves."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    if q.state.ready_replicas > 0:
        return None
    return f"no replica of '{q.candidate.endpoint}' is ready"
