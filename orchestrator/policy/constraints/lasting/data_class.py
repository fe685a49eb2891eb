"""A zone never receives data above the class that it may hold."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    zone = p.candidate.zone
    if p.data_class <= zone.max_data_class:
        return None
    return (
        f"the data is {p.data_class.label}; zone '{zone.name}' may hold "
        f"{zone.max_data_class.label} at most"
    )
