"""What more of anything does to the bound, and that no schedule is below it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.policy.arrays import Floats
from orchestrator.simulate.oracle import consult
from orchestrator.simulate.oracle_terms import Demand, Supply

BUCKET_S = 300.0
STEP_S = 60.0
HOURS = BUCKET_S / 3600


@dataclass(frozen=True)
class Case:
    demand: Demand
    supply: Supply


@st.composite
def cases(draw: st.DrawFn, negative: bool = False) -> Case:
    """Where the last endpoint takes everything at any time, so that all can be served."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.integers(1, 4))
    groups = draw(st.integers(1, kinds))
    endpoints, buckets = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    slack = draw(st.integers(0, 3))
    requests = random.integers(0, 50, (kinds, buckets)).astype(float)
    work_s = requests[:, None, :] * random.uniform(1, 20, (kinds, endpoints, buckets))
    work_s[random.random((kinds, endpoints)) < 0.3] = np.inf
    usd = random.uniform(-2 if negative else 0.1, 5, (endpoints, buckets))
    usd[random.random(usd.shape) < 0.2] = np.nan
    usd[-1] = random.uniform(-2 if negative else 5, 9, buckets)
    work_s[:, -1] = requests * 10
    least = random.integers(0, 2, endpoints).astype(float)
    most = least + random.integers(0, 4, endpoints)
    most[-1] = 1000
    group = np.append(np.arange(groups), random.integers(0, groups, kinds - groups))
    return Case(
        Demand(
            group=group,
            requests=requests,
            work_s=work_s,
            slack=np.full(kinds, slack),
            attainment=random.choice([1.0, 0.99, 0.9], groups),
            spread=random.uniform(1, 3, (kinds, buckets)),
        ),
        Supply(
            usd_per_replica_hour=usd,
            min_replicas=least,
            max_replicas=most,
            provision_s=random.choice([0.0, 60.0, 600.0, 1000.0], endpoints),
            sunk_usd_per_hour=random.uniform(0, 3, endpoints),
        ),
    )


def bound_usd(demand: Demand, supply: Supply) -> float:
    told = consult(demand, supply, BUCKET_S)
    assert told.status == "Optimal"
    assert told.is_attainable
    assert told.bound_usd == pytest.approx(told.cost_usd, rel=1e-4, abs=1e-4)
    assert (told.attained >= demand.attainment - 1e-5).all()
    return told.bound_usd


def at_most(usd: float, other_usd: float) -> bool:
    return usd <= other_usd + 1e-4 * max(1.0, abs(other_usd))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_one_more_endpoint_never_costs_more(case: Case):
    demand, supply = case.demand, case.supply
    assume(len(supply.provision_s) > 1)
    without = replace(demand, work_s=demand.work_s[:, 1:])
    optional = replace(
        supply,
        min_replicas=np.append(0.0, supply.min_replicas[1:]),
        sunk_usd_per_hour=np.append(0.0, _sunk(supply)[1:]),
    )
    assert at_most(bound_usd(demand, optional), bound_usd(without, _without_first(supply)))


def _sunk(supply: Supply) -> Floats:
    assert supply.sunk_usd_per_hour is not None
    return supply.sunk_usd_per_hour


def _without_first(supply: Supply) -> Supply:
    return Supply(
        usd_per_replica_hour=supply.usd_per_replica_hour[1:],
        min_replicas=supply.min_replicas[1:],
        max_replicas=supply.max_replicas[1:],
        provision_s=supply.provision_s[1:],
        sunk_usd_per_hour=_sunk(supply)[1:],
    )


@settings(deadline=None, max_examples=60)
@given(cases(negative=True), st.floats(0, 1))
def test_less_attainment_never_costs_more(case: Case, share: float):
    relaxed = replace(case.demand, attainment=case.demand.attainment * share)
    assert at_most(bound_usd(relaxed, case.supply), bound_usd(case.demand, case.supply))


@settings(deadline=None, max_examples=60)
@given(cases(negative=True))
def test_more_slack_never_costs_more(case: Case):
    patient = replace(case.demand, slack=case.demand.slack + 1)
    assert at_most(bound_usd(patient, case.supply), bound_usd(case.demand, case.supply))


@settings(deadline=None, max_examples=60)
@given(cases(negative=True), st.floats(0.1, 20))
def test_prices_scale_the_cost(case: Case, factor: float):
    scaled = replace(
        case.supply,
        usd_per_replica_hour=case.supply.usd_per_replica_hour * factor,
        sunk_usd_per_hour=_sunk(case.supply) * factor,
    )
    one = bound_usd(case.demand, case.supply)
    assert bound_usd(case.demand, scaled) == pytest.approx(factor * one, rel=1e-3, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(cases(negative=True))
def test_no_work_goes_where_it_is_not_allowed(case: Case):
    told = consult(case.demand, case.supply, BUCKET_S)
    assert (told.share[np.isinf(case.demand.work_s)] == 0).all()
    gone = np.isnan(case.supply.usd_per_replica_hour)
    assert (told.replicas[gone] == 0).all()


@settings(deadline=None, max_examples=60)
@given(cases(negative=True))
def test_the_schedule_has_replicas_for_all_that_it_serves(case: Case):
    demand, supply = case.demand, replace(case.supply, sunk_usd_per_hour=None)
    told = consult(replace(demand, slack=np.zeros_like(demand.slack)), supply, BUCKET_S)
    work_s = (told.share * np.where(np.isinf(demand.work_s), 0, demand.work_s)).sum(axis=0)
    assert (work_s <= told.replicas * BUCKET_S + 1e-3).all()
    assert (told.replicas >= supply.least() - 1e-6).all()
    assert (told.replicas <= supply.most() + 1e-6).all()


@settings(deadline=None, max_examples=200)
@given(cases(negative=True), st.integers(0, 2**32))
def test_no_policy_costs_less_than_the_bound(case: Case, seed: int):
    """A policy that sees only the present: whole replicas that start and stop at steps within a
    bucket, are paid for from the order, take what fits in turn, and miss what they may."""
    demand = case.demand
    # The work is done in time by whoever serves all of it in its own bucket or the next.
    demand = replace(demand, slack=np.ones_like(demand.slack), spread=None)
    policy_usd = _greedy_usd(demand, case.supply, np.random.default_rng(seed))
    assert at_most(bound_usd(_followed(demand), _lasting(case.supply)), policy_usd)


@settings(deadline=None, max_examples=200)
@given(cases(negative=True), st.integers(0, 2**32))
def test_no_policy_whose_replicas_are_always_full_costs_less_than_the_bound(case: Case, seed: int):
    supply, steps = case.supply, int(BUCKET_S / STEP_S)
    ready = _whims(supply, np.random.default_rng(seed), steps)
    endpoints, buckets = supply.usd_per_replica_hour.shape
    done_s = ready.reshape(endpoints, buckets, steps).sum(axis=2) * STEP_S
    own = np.eye(endpoints, dtype=bool)[:, :, None]
    demand = Demand(
        group=np.arange(endpoints),
        requests=(done_s > 0).astype(float),
        work_s=np.where(own, done_s[:, None, :], np.inf),
        slack=np.zeros(endpoints, np.int64),
        attainment=np.ones(endpoints),
    )
    assert at_most(bound_usd(demand, supply), _usd(supply, ready, steps))


def _followed(demand: Demand) -> Demand:
    """By an empty bucket, in which the last work may be done."""
    empty = np.zeros((len(demand.group), 1))
    return replace(
        demand,
        requests=np.hstack([demand.requests, empty]),
        work_s=np.concatenate([demand.work_s, np.zeros_like(demand.work_s[:, :, :1])], axis=2),
    )


def _lasting(supply: Supply) -> Supply:
    usd = supply.usd_per_replica_hour
    return replace(supply, usd_per_replica_hour=np.hstack([usd, usd[:, -1:]]))


def _greedy_usd(demand: Demand, supply: Supply, random: np.random.Generator) -> float:
    demand, supply = _followed(demand), _lasting(supply)
    steps = int(BUCKET_S / STEP_S)
    ready = _whims(supply, random, steps)
    work_s = _served(demand, ready, steps)
    # What nobody else has done the last endpoint does, in the bucket after that of arrival.
    late = work_s[-1] / BUCKET_S
    ready[-1] = np.maximum(ready[-1], np.repeat(np.ceil(late), steps))
    return _usd(supply, ready, steps)


def _usd(supply: Supply, ready: Floats, steps: int) -> float:
    """What ready replicas cost that are paid for from the order."""
    usd, least, most = supply.usd_per_replica_hour, supply.least(), supply.most()
    endpoints, buckets = usd.shape
    paid = ready.copy()
    # Ordered before the trace, or while nothing can be had: at the highest price.
    highest = np.maximum(np.nanmax(np.nan_to_num(usd), axis=1), 0.0)
    early_usd = 0.0
    for endpoint in range(endpoints):
        ahead = int(np.ceil(supply.provision_s[endpoint] / STEP_S))
        before = np.append(supply.min_replicas[endpoint], ready[endpoint, :-1])
        for step in np.flatnonzero(ready[endpoint] > before):
            started = ready[endpoint, step] - before[step]
            paid[endpoint, max(0, step - ahead) : step] += started
            early_usd += highest[endpoint] * started * max(0, ahead - step) * STEP_S / 3600
    by_bucket = paid.reshape(endpoints, buckets, steps)
    assert (by_bucket >= least[:, :, None]).all()
    counted = np.where(np.isnan(usd), highest[:, None], usd)[:, :, None] * by_bucket
    # More than the maximum is not paid for having: a negative price is for what is allowed.
    allowed = (np.nan_to_num(usd) * most)[:, :, None]
    counted = np.where((by_bucket > most[:, :, None]) & (counted < 0), allowed, counted)
    return float(counted.sum() * STEP_S / 3600 + early_usd + _sunk(supply).sum() * HOURS * buckets)


def _whims(supply: Supply, random: np.random.Generator, steps: int) -> Floats:
    """(E, steps), ready replicas."""
    least, most = supply.least(), supply.most()
    ready = np.repeat(least, steps, axis=1)
    for endpoint in range(len(least)):
        held = least[endpoint, 0]
        for step in range(ready.shape[1]):
            if random.random() < 0.2:
                held = random.integers(0, 5)
            bucket = step // steps
            ready[endpoint, step] = np.clip(held, least[endpoint, bucket], most[endpoint, bucket])
    return ready


def _served(demand: Demand, ready: Floats, steps: int) -> Floats:
    """(E, T), the work that is done; what no other endpoint has room for goes to the last, one
    bucket later."""
    kinds, endpoints, buckets = demand.work_s.shape
    done_s = np.zeros((endpoints, buckets))
    room_s = ready.reshape(endpoints, buckets, steps).sum(axis=2) * STEP_S
    missable = (1 - demand.attainment) * np.bincount(
        demand.group, demand.requests.sum(axis=1), len(demand.attainment)
    )
    for bucket in range(buckets):
        for kind in range(kinds):
            left = demand.requests[kind, bucket]
            for endpoint in range(endpoints - 1):
                work_s = demand.work_s[kind, endpoint, bucket]
                if left <= 0 or np.isinf(work_s):
                    continue
                free_s = room_s[endpoint, bucket] - done_s[endpoint, bucket]
                each_s = work_s / demand.requests[kind, bucket]
                taken = min(left, free_s / each_s)
                done_s[endpoint, bucket] += taken * each_s
                left -= taken
            missed = min(left, missable[demand.group[kind]])
            missable[demand.group[kind]] -= missed
            left -= missed
            if left > 0:
                each_s = demand.work_s[kind, -1, bucket] / demand.requests[kind, bucket]
                done_s[-1, bucket + 1] += left * each_s
    return done_s
