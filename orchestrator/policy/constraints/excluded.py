"""An endpoint that failed this request, or is ejected for failing others, is not tried again."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    return q.facts.excluded.get(q.candidate.endpoint)
