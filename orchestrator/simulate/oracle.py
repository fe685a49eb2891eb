"""The least that serving a trace can cost, by a linear program that sees all of it beforehand.

Time is cut into buckets. The program chooses, for each kind of requests and bucket of arrival,
which share is worked on where and in which bucket within the slack, which share is missed, and how
many replicas each endpoint has in each bucket:

    minimise    replicas x price x hours + starts x least price of provisioning + what is sunk
    where       worked on + missed = 1                      for each kind and bucket of arrival
                work <= replicas x seconds x utilization    for each endpoint and bucket
                starts >= replicas - replicas before        for each endpoint and bucket
                missed <= 1 - attainment                    for each group, over the trace
                min <= replicas <= max; none where none can be had

What a policy does makes a feasible point that costs no more than the policy: take its mean ready
replicas of each bucket, what provisions at negative prices among them, and the work as it was done.
So its cost is not below the bound if it reaches the attainment. Relaxed is that

- replicas and requests are divisible, between endpoints and buckets, and so is a bucket's mean;
- nothing queues inside a bucket, and a bucket's requests are there when it begins;
- prices, supply, and what arrives are known: capacity is ordered ahead, and paid for meanwhile;
- a replica's slots are always full: draining, preemption and lost work cost nothing;
- where a kind's requests differ, those missed are as large as the largest (`Demand.spread`).

It is no bound for a policy where

- `work_s` is more than a full replica needs, or work saved by a cache is counted;
- `slack` is less than `slack_buckets` of the time until a last token that is still in time, or the
  trace's last buckets are not followed by as many empty ones;
- `spread` is None though the requests of a kind differ in size, or they differ in which endpoints
  suit them (long prompts, long answers): a policy that sends each where it is quick does less work
  than any share of the kind's whole takes, and kinds have to tell such requests apart;
- a price is above the least of its bucket, `min_replicas` above what is paid for, `max_replicas`
  below what is paid for at a time, or replicas stand at first that are not in `standing`;
- `max_utilization` is below 1, and the policy's replicas are busier;
- with `is_integer`: the policy changes its replicas inside buckets.
"""

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.simulate.linear_program import Solution, solve
from orchestrator.simulate.oracle_program import OracleProgram
from orchestrator.simulate.oracle_terms import Demand, Supply

TOLERANCE = 1e-6
"""A share of a group's requests that is not told from none."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """The bound, and the schedule that comes to it."""

    status: str
    """HiGHS's: "Optimal", or why not. The bound holds whatever it is; the schedule is NaN
    where none was found."""
    is_attainable: bool
    """False: no schedule reaches the attainment. All else is for the most that can be reached then:
    where the sum of the shares by which groups fall short is least."""
    bound_usd: float
    """By weak duality from the solver's duals (with `is_integer`: the solver's)."""
    cost_usd: float
    """Of the schedule: the bound, but for the solver's tolerance."""
    usd: Floats
    """(E, T), sunk costs included."""
    replicas: Floats
    """(E, T)"""
    share: Floats
    """(K, E, T), of the requests that arrive in a bucket: where they are worked on."""
    attained: Floats
    """(G)"""
    wall_s: float

    @property
    def usd_by_endpoint(self) -> Floats:
        by_endpoint: Floats = self.usd.sum(axis=1)
        return by_endpoint


def consult(
    demand: Demand,
    supply: Supply,
    bucket_s: float,
    *,
    max_utilization: float = 1.0,
    is_integer: bool = False,
    time_limit_s: float = math.inf,
) -> Oracle:
    """ValueError where the terms do not fit. `is_integer`: replicas are whole, for small cases.
    `time_limit_s`: of each program that is solved; where it is over the bound is what is proven."""
    demand.check()
    supply.check(*demand.work_s.shape[1:])
    if not 0 < bucket_s < math.inf:
        raise ValueError("a bucket has to take time")
    if not 0 < max_utilization <= 1:
        raise ValueError("utilization has to be above 0, at most 1")
    stated = OracleProgram(demand, supply, bucket_s, max_utilization, is_integer)
    solution = solve(stated.program, time_limit_s)
    wall_s, is_attainable = solution.wall_s, True
    if not solution.is_optimal:
        best = solve(stated.attaining(), time_limit_s)
        wall_s += best.wall_s
        short = stated.short(best.x)
        is_attainable = not (
            short.max(initial=0) > TOLERANCE if best.is_optimal else solution.is_infeasible
        )
        if best.is_optimal and not (is_attainable and solution.is_late):
            solution = solve(stated.falling_short(short + TOLERANCE), time_limit_s)
            wall_s += solution.wall_s
    return _told(stated, solution, is_attainable, wall_s)


def _told(stated: OracleProgram, solution: Solution, is_attainable: bool, wall_s: float) -> Oracle:
    supply, hours = stated.supply, stated.bucket_s / 3600
    endpoints = len(supply.provision_s)
    sunk = np.zeros(endpoints) if supply.sunk_usd_per_hour is None else supply.sunk_usd_per_hour
    usd = stated.usd(solution.x) + (sunk * hours)[:, None]
    return Oracle(
        status=solution.status,
        is_attainable=is_attainable,
        bound_usd=solution.bound + float(sunk.sum()) * hours * usd.shape[1],
        cost_usd=float(usd.sum()),
        usd=usd,
        replicas=stated.replicas(solution.x),
        share=stated.share(solution.x),
        attained=stated.attained(solution.x),
        wall_s=wall_s,
    )
