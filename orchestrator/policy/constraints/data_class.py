"""A zone never receives data above the class that it may hold."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    zone = q.candidate.zone
    if q.data_class <= zone.max_data_class:
        return None
    return (
        f"the data is {q.data_class.label}; zone '{zone.name}' may hold "
        f"{zone.max_data_class.label} at most"
    )
