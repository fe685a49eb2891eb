"""A workload runs only in the zones that it names."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    zone = p.candidate.zone.name
    if zone in p.workload.allowed_zones:
        return None
    return f"zone '{zone}' is not among the allowed zones of workload '{p.workload.name}'"
