"""What a simulation came to, as plain data for people and machines.

What is at home and what is rented goes by the rules, as in `status`: a pool to which a workload may
burst is cloud, every other pool is on-prem.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.spec import Workload
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.bound import Bound
from orchestrator.simulate.tally import HOUR_S, Tally, WorkloadTally


@dataclass(frozen=True)
class Simulated:
    """One policy's run."""

    policy: str
    """By the name that the command line knows."""
    tally: Tally
    wall_s: float
    """That it took."""

    @property
    def catalogue(self) -> Catalogue:
        return self.tally.model.catalogue


def report_of(
    runs: Sequence[Simulated], about: Mapping[str, Any], bound: Bound | None = None
) -> dict[str, Any]:
    """Of one policy as it is, of several as a list. `about`: what they have in common."""
    reports = [_report(run, about) for run in runs]
    report = reports[0] if len(reports) == 1 else {"policies": reports}
    return report if bound is None else {**report, "bound": bound_report(bound, runs[0].catalogue)}


def policies_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The reports of single policies, whichever kind it is."""
    policies: list[dict[str, Any]] = report.get("policies", [report])
    return policies


def cloud_pools(catalogue: Catalogue) -> set[str]:
    """Those to which a workload may burst."""
    return {pool for name in catalogue.workloads for pool in catalogue.burst_pools(name)}


def _report(run: Simulated, about: Mapping[str, Any]) -> dict[str, Any]:
    tally, catalogue = run.tally, run.catalogue
    workloads = tally.workloads.values()
    arrived = sum(w.arrived for w in workloads)
    usd = sum(tally.usd_by_pool.values())
    away = cloud_pools(catalogue)
    cloud_usd = sum(usd for pool, usd in tally.usd_by_pool.items() if pool in away)
    return {
        **about,
        "policy": run.policy,
        "config_version": catalogue.version,
        "tick_s": tally.tick_s,
        "duration_s": tally.duration_s,
        "requests": arrived,
        "shed": sum(w.shed for w in workloads),
        "slo_attainment": _share(sum(w.in_slo for w in workloads), arrived, 1.0),
        "cost_usd": {"total": usd, "onprem": usd - cloud_usd, "cloud": cloud_usd},
        "cloud_fraction": _cloud_fraction(tally, away),
        "bursts": sum(tally.bursts_by_workload.values()),
        "reversals_per_hour": _share(tally.reversals, tally.duration_s / HOUR_S),
        "residency_violations": sum(w.violations for w in workloads),
        "gpu_hours": sum(tally.gpu_hours_by_pool.values()),
        "idle_gpu_hours": sum(tally.idle_gpu_hours_by_pool.values()),
        "unpriced_gpu_hours": sum(tally.unpriced_gpu_hours_by_pool.values()),
        "replicas_started": tally.replicas_started,
        "replicas_lost": tally.replicas_lost,
        "by_workload": {
            name: _of_workload(catalogue.workloads[name], of, tally.bursts_by_workload.get(name, 0))
            for name, of in tally.workloads.items()
        },
        "by_pool": {name: _of_pool(tally, name, name in away) for name in catalogue.pools},
        "usd_by_hour": tally.usd_by_hour,
        "wall_s": run.wall_s,
    }


def bound_report(bound: Bound, catalogue: Catalogue) -> dict[str, Any]:
    away = cloud_pools(catalogue)
    cloud_usd = sum(usd for pool, usd in bound.usd_by_pool.items() if pool in away)
    return {
        "cost_usd": {"total": bound.usd, "onprem": bound.usd - cloud_usd, "cloud": cloud_usd},
        "slo_attainment": bound.slo_attainment,
        "is_attainable": bound.is_attainable,
        "gpu_hours": sum(bound.gpu_hours_by_pool.values()),
        "by_workload": {
            name: {"asked": bound.asked[name], "attained": attained}
            for name, attained in bound.attained.items()
        },
        "status": bound.status,
        "bucket_s": bound.bucket_s,
        "wall_s": bound.wall_s,
    }


def _of_workload(workload: Workload, of: WorkloadTally, bursts: int) -> dict[str, Any]:
    sent = sum(of.by_zone.values())
    return {
        "arrived": of.arrived,
        "served": of.served,
        "shed": of.shed,
        "slo_attainment": of.slo_attainment,
        "ttft_p50_s": of.ttft_p50_s,
        "ttft_p95_s": of.ttft_p95_s,
        "ttft_slo_s": workload.slo.ttft_p95_s,
        "itl_p50_s": of.itl_p50_s,
        "itl_p95_s": of.itl_p95_s,
        "itl_slo_s": workload.slo.itl_p95_s,
        "output_tokens": of.output_tokens,
        "share_by_zone": {zone: count / sent for zone, count in of.by_zone.items()},
        "bursts": bursts,
        "residency_violations": of.violations,
    }


def _of_pool(tally: Tally, pool: str, is_cloud: bool) -> dict[str, Any]:
    return {
        "side": "cloud" if is_cloud else "onprem",
        "usd": tally.usd_by_pool.get(pool, 0.0),
        "gpu_hours": tally.gpu_hours_by_pool.get(pool, 0.0),
        "idle_gpu_hours": tally.idle_gpu_hours_by_pool.get(pool, 0.0),
        "unpriced_gpu_hours": tally.unpriced_gpu_hours_by_pool.get(pool, 0.0),
    }


def _cloud_fraction(tally: Tally, away: set[str]) -> float:
    """Of all that was sent, what was sent again counted again."""
    sent = tally.model.state.sent.sum(axis=0)
    cloud = sum(int(sent[c.number]) for c in tally.model.candidates if c.pool.name in away)
    return _share(cloud, int(sent.sum()))


def _share(part: float, whole: float, of_nothing: float = 0.0) -> float:
    return part / whole if whole else of_nothing
