"""A burst pool above the workload's ceiling, or without a price, takes no request."""

from orchestrator.policy.question import Question


def check(q: Question) -> str | None:
    if not q.is_burst_pool or q.workload.burst is None:
        return None
    pool, ceiling = q.candidate.pool.name, q.workload.burst.max_usd_per_gpu_hour
    quote = q.snapshot.quotes.get(pool)
    if quote is None:
        return f"pool '{pool}' has no price quote"
    if quote.usd_per_gpu_hour <= ceiling:
        return None
    return (
        f"{quote.usd_per_gpu_hour:.2f} USD per GPU-hour (quote of {quote.source}) is above the "
        f"ceiling of {ceiling:.2f}"
    )
