"""What the replicas that exist cost, whether they serve or not, and whose it is."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import Quote
from orchestrator.pools.actuator import Unowned


class PoolPrice(BaseModel):
    """A pool's last known one, for replicas that outlive its place in the rules."""

    usd_per_gpu_hour: float
    gpus_per_replica: int


def pool_of(found: Unowned) -> str:
    """Empty where it cannot be told."""
    return (found.endpoint or "").partition("/")[0]


def last_prices(
    before: Mapping[str, PoolPrice],
    catalogue: Catalogue,
    quotes: Mapping[str, Quote],
    unowned: Iterable[Unowned],
    watches_removed: bool,
) -> dict[str, PoolPrice]:
    """By pool: of the rules, and of whatever may still run. `watches_removed`: whether clusters
    are watched that the rules have no more, where anything may be found yet."""
    found = {pool_of(u) for u in unowned}
    kept = {
        pool: price
        for pool, price in before.items()
        if pool in catalogue.pools or pool in found or watches_removed
    }
    return kept | {
        name: PoolPrice(
            usd_per_gpu_hour=quotes[name].usd_per_gpu_hour, gpus_per_replica=pool.gpus_per_replica
        )
        for name, pool in catalogue.pools.items()
        if name in quotes
    }


def gpus(
    catalogue: Catalogue,
    replicas: Mapping[str, int],
    unowned: Iterable[Unowned],
    prices: Mapping[str, PoolPrice],
) -> dict[str, int]:
    """By pool with a price. `replicas`: by endpoint of the rules."""
    counts: dict[str, int] = {}
    for endpoint, count in replicas.items():
        pool = catalogue.candidates[endpoint].pool.name
        counts[pool] = counts.get(pool, 0) + count
    for found in unowned:
        pool = pool_of(found)
        counts[pool] = counts.get(pool, 0) + found.replicas.total
    return {
        pool: count * prices[pool].gpus_per_replica
        for pool, count in counts.items()
        if count and pool in prices
    }


def token_usd(catalogue: Catalogue, pool: str, used: Mapping[str, int]) -> float:
    """What tokens cost at a pool that charges by them, at most: reports do not part prompts from
    answers, and the dearer of the two list prices is taken."""
    listed = catalogue.pools[pool].price.tokens
    if listed is None:
        return 0.0
    dearer = max(listed.input_usd_per_million, listed.output_usd_per_million)
    return sum(used.values()) * dearer / 1e6


def used_tokens(tokens: Mapping[str, Mapping[str, int]], pool: str) -> dict[str, int]:
    """By workload, of `tokens` by endpoint and workload."""
    used: dict[str, int] = {}
    for endpoint, by_workload in tokens.items():
        if endpoint.partition("/")[0] == pool:
            for workload, count in by_workload.items():
                used[workload] = used.get(workload, 0) + count
    return used
