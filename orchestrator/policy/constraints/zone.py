"""A workload runs only in the zones that it names."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    zone = q.candidate.zone.name
    if zone in q.workload.allowed_zones:
        return None
    return f"zone '{zone}' is not among the allowed zones of workload '{q.workload.name}'"
