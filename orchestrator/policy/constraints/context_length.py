"""A variant can take no more tokens than its context holds."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    limit = q.candidate.variant.max_model_len
    if q.facts.total_tokens <= limit:
        return None
    return f"about {q.facts.total_tokens} tokens are asked for; the context holds {limit}"
