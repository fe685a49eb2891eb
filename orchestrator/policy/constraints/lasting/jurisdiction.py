"""A workload runs only under the law that it names, where it names any."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    zone, wanted = p.candidate.zone, p.workload.jurisdictions
    if not wanted or zone.jurisdiction in wanted:
        return None
    return f"zone '{zone.name}' is under {zone.jurisdiction}, not under {' or '.join(wanted)}"
