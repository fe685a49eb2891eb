"""A zone must have every certification that the workload requires."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    zone = p.candidate.zone
    missing = [c for c in p.workload.certifications if c not in zone.certifications]
    return f"zone '{zone.name}' is not certified for {', '.join(missing)}" if missing else None
