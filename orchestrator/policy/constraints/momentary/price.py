"""What is paid for by the request costs no more than the workload's ceiling, and has a price."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question

ANY = float("inf")


def feasible(q: Question) -> Bools | None:
    if q.selection.metered is None:
        return None
    ceiling = q.selection.workload.price_ceiling
    # A price that is not known compares as false, and so is above every ceiling.
    passes: Bools = q.usd_per_gpu_hour <= (ceiling.usd_per_gpu_hour or ANY)
    if ceiling.usd_per_million_tokens is not None:
        passes &= q.usd_per_million_tokens <= ceiling.usd_per_million_tokens
    passes |= q.selection.paid_for
    return passes


def sentence(q: Question, position: int) -> str:
    candidate = q.selection.candidates[position]
    pool, ceiling = candidate.pool, q.selection.workload.price_ceiling
    quote = q.view.snapshot.quotes.get(pool.name)
    if quote is None and pool.price.tokens is None:
        return f"pool '{pool.name}' has no price quote"
    if quote is not None and quote.usd_per_gpu_hour > (ceiling.usd_per_gpu_hour or ANY):
        return (
            f"{quote.usd_per_gpu_hour:.2f} USD per GPU-hour (quote of {quote.source}) is above the "
            f"ceiling of {ceiling.usd_per_gpu_hour:.2f}"
        )
    tokens = q.usd_per_million_tokens[position]
    if tokens != tokens:
        return (
            f"what a token costs is not known: give '{candidate.variant.name}' its performance "
            f"on {pool.accelerator}"
        )
    return (
        f"{tokens:.2f} USD per million tokens is above the ceiling of "
        f"{ceiling.usd_per_million_tokens:.2f}"
    )
