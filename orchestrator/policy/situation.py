"""Fleets that nobody has to start: the snapshots that probes and plans are decided on."""

import math
from collections.abc import Mapping

from orchestrator.config.probes import Fleet
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState, Quote, Snapshot
from orchestrator.policy.view import room

FOR_GOOD_S = float(2**53)


def imagine(
    catalogue: Catalogue,
    fleet: Fleet,
    workload: str,
    usd_per_gpu_hour: Mapping[str, float] | None = None,
) -> Snapshot:
    """The state of such a fleet when this workload asks; the prices are those that feeds give, by
    pool. Names that are not configured are passed over."""
    bursts = {w: p for w, p in fleet.bursting.items() if w in catalogue.workloads}
    down = set(fleet.down)
    if fleet.situation == "home_down" and workload in catalogue.workloads:
        down |= {c.pool.name for c in catalogue.home(workload)}
        for first in catalogue.burst_pools(workload)[:1]:
            bursts.setdefault(workload, first)
    endpoints = {}
    for endpoint, candidate in catalogue.candidates.items():
        pool = candidate.pool
        scaled_up = fleet.situation != "at_rest" or pool.name in bursts.values()
        ready = pool.max_replicas if scaled_up else pool.min_replicas
        endpoints[endpoint] = EndpointState(ready_replicas=0 if pool.name in down else ready)
    for name in fleet.bursting:
        if name in bursts:
            _fill(endpoints, catalogue, name)
    prices = dict(usd_per_gpu_hour or {})
    return Snapshot(
        config_version=catalogue.version,
        created_at_s=0,
        endpoints=endpoints,
        quotes=_quotes(catalogue, prices, fleet.usd_per_gpu_hour),
        bursts={
            name: BurstState(phase=BurstPhase.BURSTING, pool=pool, reason="it is taken to burst")
            for name, pool in bursts.items()
        },
    )


def affordable_usd_per_gpu_hour(catalogue: Catalogue, pool: str) -> float:
    """Half of what the strictest workload would pay that may burst there, 1 at most."""
    ceilings = [2.0]
    for workload in catalogue.workloads.values():
        if pool not in catalogue.burst_pools(workload.name):
            continue
        ceiling = workload.price_ceiling
        ceilings.append(ceiling.usd_per_gpu_hour or math.inf)
        if ceiling.usd_per_million_tokens is not None:
            for candidate in catalogue.by_pool[pool]:
                ceilings.append(_usd_per_gpu_hour(candidate, ceiling.usd_per_million_tokens))
    return min(ceilings) / 2


def _usd_per_gpu_hour(candidate: Candidate, usd_per_million_tokens: float) -> float:
    if candidate.performance is None:
        return math.inf
    tokens_per_hour = candidate.performance.decode_tokens_per_s * 3600
    return usd_per_million_tokens * tokens_per_hour / 1e6 / candidate.pool.gpus_per_replica


def _fill(endpoints: dict[str, EndpointState], catalogue: Catalogue, workload: str) -> None:
    """Home has room for one request more, which waits there for twice its objective."""
    objective_s = catalogue.workloads[workload].slo.ttft_p95_s
    for candidate in catalogue.home(workload):
        state = endpoints[candidate.endpoint]
        slots = state.ready_replicas * candidate.variant.max_num_seqs
        if slots:
            full = {
                "inflight": {"any": room(slots) - 1},
                "slot_s": 2 * objective_s * slots / (room(slots) - slots),
            }
            endpoints[candidate.endpoint] = state.model_copy(update=full)


def _quotes(
    catalogue: Catalogue, of_feeds: Mapping[str, float], given: Mapping[str, float]
) -> dict[str, Quote]:
    quotes = {}
    for name, pool in catalogue.pools.items():
        if name in given:
            usd, source = given[name], "the probe"
        elif pool.price.fixed_usd_per_gpu_hour is not None:
            usd, source = pool.price.fixed_usd_per_gpu_hour, "configuration"
        elif pool.price.tokens is not None:
            continue
        elif name in of_feeds:
            usd, source = of_feeds[name], pool.price.feed or "on-prem"
        else:
            usd, source = affordable_usd_per_gpu_hour(catalogue, name), "nobody: it is assumed"
        quotes[name] = Quote(
            usd_per_gpu_hour=usd, source=source, fetched_at_s=0, valid_to_s=FOR_GOOD_S
        )
    return quotes
