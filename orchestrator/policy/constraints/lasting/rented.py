"""A pool that always has a replica serves everybody; one that is rented for bursts, those who burst
to it."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    pool, burst = p.candidate.pool, p.workload.burst
    if pool.min_replicas or (burst is not None and pool.name in burst.pools):
        return None
    return (
        f"pool '{pool.name}' is rented for bursts, and not among the burst pools of workload "
        f"'{p.workload.name}'"
    )
