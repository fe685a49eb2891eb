"""What a replica-hour costs, as a share of what the workload would pay at most."""

from orchestrator.policy.question import Question


def score(q: Question) -> float:
    """Home pools are paid for already: an idle slot there costs nothing more."""
    quote = q.snapshot.quotes.get(q.candidate.pool.name)
    if not q.is_burst_pool or q.workload.burst is None or quote is None:
        return 0.0
    return quote.usd_per_gpu_hour / q.workload.burst.max_usd_per_gpu_hour
