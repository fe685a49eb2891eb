"""Everything that `status` shows, from what a controller knows."""

from typing import Any

from orchestrator.controller.charges import pool_of
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.memory import Memory
from orchestrator.controller.quotes import Quotes
from orchestrator.controller.strays import Stray
from orchestrator.controller.traffic import Traffic
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstState, EndpointState, Snapshot


def status(
    catalogue: Catalogue,
    snapshot: Snapshot,
    memory: Memory,
    fleet: Fleet,
    traffic: Traffic,
    quotes: Quotes,
    strays: list[Stray],
    now_s: float,
) -> dict[str, Any]:
    costs = memory.costs
    away = {p for w in catalogue.workloads for p in catalogue.burst_pools(w)}
    return {
        "time_s": now_s,
        "mode": catalogue.configuration.controller.mode,
        "config_version": snapshot.config_version,
        "snapshot_version": snapshot.version,
        "gateways": {
            gateway: {
                "config_version": report.config_version,
                "snapshot_version": report.snapshot_version,
            }
            for gateway, report in traffic.reports().items()
        },
        "pools": {
            name: _pool(catalogue, snapshot, memory, fleet, quotes, name, now_s)
            for name in catalogue.pools
        },
        "bursts": {
            name: _burst(memory.bursts.get(name, BurstState()), memory, name)
            for name in snapshot.bursts.keys() | memory.overrides.keys()
        },
        "unowned": [
            {
                "name": stray.found.name,
                "cluster": stray.cluster,
                "endpoint": stray.found.endpoint,
                "replicas": stray.found.replicas.total,
                "since_s": stray.since_s,
                "usd_per_gpu_hour": _price(memory, stray),
            }
            for stray in strays
        ],
        "clusters_lost": dict(fleet.unseen),
        "cost_usd": {
            "total": sum(costs.by_pool.values()),
            "cloud": sum(usd for pool, usd in costs.by_pool.items() if pool in away),
            "by_pool": costs.by_pool,
            "by_workload": costs.by_workload,
            "unpriced_replicas": sum(
                stray.found.replicas.total for stray in strays if _price(memory, stray) is None
            ),
        },
    }


def _price(memory: Memory, stray: Stray) -> float | None:
    price = memory.prices.get(pool_of(stray.found))
    return None if price is None else price.usd_per_gpu_hour


def _burst(state: BurstState, memory: Memory, workload: str) -> dict[str, Any]:
    override = memory.overrides.get(workload)
    return {
        "state": state.phase.value,
        "pool": state.pool,
        "since_s": state.since_s,
        "reason": state.reason,
        "override": override and override.model_dump(mode="json"),
    }


def _pool(
    catalogue: Catalogue,
    snapshot: Snapshot,
    memory: Memory,
    fleet: Fleet,
    quotes: Quotes,
    pool: str,
    now_s: float,
) -> dict[str, Any]:
    candidates = catalogue.by_pool[pool]
    quote, held = snapshot.quotes.get(pool), memory.holds.get(pool)
    variants = {}
    for c in candidates:
        state = snapshot.endpoints.get(c.endpoint, EndpointState())
        replicas, provision = fleet.replicas(c.endpoint), memory.provisions.get(c.endpoint)
        given_up = provision is not None and provision.given_up(now_s)
        variants[c.variant.name] = {
            "ready": state.ready_replicas,
            "target": memory.targets.get(c.endpoint, 0),
            "replicas": replicas.total,
            "leaving": replicas.leaving,
            "running": state.running,
            "waiting": state.waiting,
            "queued": state.queued,
            "inflight": sum(state.inflight.values()),
            "ttft_p50_s": state.ttft_p50_s,
            "ttft_p95_s": state.ttft_p95_s,
            "failure": fleet.failures.get(c.endpoint),
            "given_up": {"retry_at_s": provision.retry_at_s, "reason": provision.reason}
            if provision is not None and given_up
            else None,
        }
    return {
        "zone": candidates[0].zone.name if candidates else None,
        "accelerator": catalogue.pools[pool].accelerator,
        "hold": held and held.hold.value,
        "hold_until_s": held and held.until_s,
        "replicas_ready": sum(v["ready"] for v in variants.values()),
        "replicas_target": sum(v["target"] for v in variants.values()),
        "replicas": sum(v["replicas"] for v in variants.values()),
        "quote": quote.model_dump() | {"stale": quote.valid_to_s < now_s} if quote else None,
        "price": quotes.described(pool, now_s),
        "variants": variants,
    }
