"""How long the oracle takes for nine days of synthetic demand.

python -m tests.benchmarks.oracle [--days 9] [--bucket-s 300] [--kinds 8] [--endpoints 10]
"""

import argparse
import time

import numpy as np

from orchestrator.simulate.oracle import consult
from orchestrator.simulate.oracle_terms import Demand, Supply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=9)
    parser.add_argument("--bucket-s", type=float, default=300)
    parser.add_argument("--kinds", type=int, default=8)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--slacks", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--attainment", type=float, default=0.99)
    options = parser.parse_args()
    buckets = int(options.days * 86400 / options.bucket_s)
    for slack in options.slacks:
        demand, supply = synthetic(
            options.kinds, options.endpoints, buckets, options.bucket_s, slack, options.attainment
        )
        began_s = time.perf_counter()
        told = consult(demand, supply, options.bucket_s)
        print(
            f"{buckets} buckets x {options.kinds} kinds x {options.endpoints} endpoints, "
            f"slack {slack}: {time.perf_counter() - began_s:.1f} s ({told.wall_s:.1f} s in HiGHS), "
            f"{told.status}, attained {told.attained.min():.4f}, cost {told.cost_usd:.4f} USD, "
            f"bound {told.bound_usd:.4f} USD",
            flush=True,
        )


def synthetic(
    kinds: int, endpoints: int, buckets: int, bucket_s: float, slack: int, attainment: float
) -> tuple[Demand, Supply]:
    """Daily waves with noise and bursts; owned, on-demand and spot endpoints; some kinds are
    kept at home."""
    random = np.random.default_rng(1)
    hours = np.arange(buckets) * bucket_s / 3600
    wave = 1 + 0.7 * np.sin((hours - random.uniform(0, 24, (kinds, 1))) * 2 * np.pi / 24)
    requests = np.ceil(200 * wave * random.lognormal(0, 0.3, (kinds, buckets)))
    requests *= np.where(random.random((kinds, buckets)) < 0.01, 4, 1)
    speed = random.uniform(0.5, 3, (kinds, endpoints, 1))
    work_s = requests[:, None, :] * speed * random.lognormal(0, 0.1, (kinds, 1, buckets))
    owned, spot = endpoints * 3 // 10, endpoints * 3 // 10
    work_s[: kinds // 4, owned:] = np.inf
    usd = random.uniform(2, 6, (endpoints, 1)) * random.lognormal(0, 0.05, (endpoints, buckets))
    usd[:owned] *= 0.1
    usd[owned : owned + spot] *= 0.4
    gone = random.random((spot, buckets // 12 + 1)) < 0.2
    usd[owned : owned + spot][np.repeat(gone, 12, axis=1)[:, :buckets]] = np.nan
    return (
        Demand(
            group=np.arange(kinds),
            requests=requests,
            work_s=work_s,
            slack=np.full(kinds, slack),
            attainment=np.full(kinds, attainment),
        ),
        Supply(
            usd_per_replica_hour=usd,
            min_replicas=np.where(np.arange(endpoints) < owned, 1.0, 0.0),
            max_replicas=np.where(np.arange(endpoints) < owned, 8.0, 64.0),
            provision_s=np.where(np.arange(endpoints) < owned, 60.0, 600.0),
            sunk_usd_per_hour=np.where(np.arange(endpoints) < owned, 5.0, 0.0),
        ),
    )


if __name__ == "__main__":
    main()
