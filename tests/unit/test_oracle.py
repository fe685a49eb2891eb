"""The oracle on cases whose optimum is known by hand."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.simulate.linear_program import weak_bound
from orchestrator.simulate.oracle import Oracle, consult
from orchestrator.simulate.oracle_program import OracleProgram
from orchestrator.simulate.oracle_terms import Demand, Supply, slack_buckets

HOUR_S = 3600.0
NO = np.inf


def demand(
    work_s: list[list[list[float]]],
    *,
    requests: list[list[float]] | None = None,
    group: list[int] | None = None,
    slack: int = 0,
    attainment: float = 1.0,
    spread: list[list[float]] | None = None,
) -> Demand:
    """By kind, endpoint, bucket. Without `requests`: a hundred where there is work."""
    work = np.array(work_s)
    kinds = len(work)
    numbers = np.arange(kinds) if group is None else np.array(group)
    arrived = np.where((work > 0).any(axis=1), 100.0, 0.0)
    return Demand(
        group=numbers,
        requests=arrived if requests is None else np.array(requests),
        work_s=work,
        slack=np.full(kinds, slack),
        attainment=np.full(numbers.max() + 1, attainment),
        spread=None if spread is None else np.array(spread),
    )


def supply(
    usd: list[list[float]],
    *,
    least: float = 0.0,
    most: float = 10.0,
    provision_s: float = 0.0,
    **others: list[float],
) -> Supply:
    endpoints = len(usd)
    return Supply(
        usd_per_replica_hour=np.array(usd),
        min_replicas=np.full(endpoints, least),
        max_replicas=np.full(endpoints, most),
        provision_s=np.full(endpoints, provision_s),
        **{name: np.array(values) for name, values in others.items()},
    )


def usd_of(told: Oracle) -> float:
    assert told.status == "Optimal"
    assert told.bound_usd == pytest.approx(told.cost_usd, rel=1e-5, abs=1e-5)
    return told.cost_usd


def test_pays_for_the_work_where_nothing_else_binds():
    told = consult(demand([[[7200, 1800]]]), supply([[3, 3]]), HOUR_S)
    assert usd_of(told) == pytest.approx(3 * 2.5)
    assert told.replicas[0] == pytest.approx([2, 0.5])
    assert told.usd.sum(axis=0) == pytest.approx([6, 1.5])
    assert told.is_attainable


def test_whole_replicas_cost_more():
    told = consult(demand([[[7200, 1800]]]), supply([[3, 3]]), HOUR_S, is_integer=True)
    assert usd_of(told) == pytest.approx(3 * 3)


def test_a_lower_utilization_takes_more_replicas():
    told = consult(demand([[[7200]]]), supply([[3]]), HOUR_S, max_utilization=0.5)
    assert usd_of(told) == pytest.approx(3 * 4)


def test_work_goes_where_it_costs_least_by_speed_and_price():
    # The second endpoint costs twice as much an hour and takes a third of the time.
    told = consult(demand([[[3600], [1200]]]), supply([[2], [4]]), HOUR_S)
    assert usd_of(told) == pytest.approx(4 / 3)
    assert told.share[0, :, 0] == pytest.approx([0, 1], abs=1e-6)
    assert told.usd_by_endpoint == pytest.approx([0, 4 / 3], abs=1e-5)


def test_what_does_not_fit_at_home_goes_elsewhere():
    told = consult(demand([[[36000], [36000]]]), supply([[1], [5]], most=6), HOUR_S)
    assert usd_of(told) == pytest.approx(6 * 1 + 4 * 5)


def test_restricted_work_stays_and_other_work_makes_room_for_it():
    told = consult(
        demand([[[7200], [NO]], [[7200], [7200]]]),
        supply([[1], [5]], most=3),
        HOUR_S,
    )
    assert usd_of(told) == pytest.approx(3 * 1 + 1 * 5)
    assert told.share[0, 1, 0] == 0


def test_work_waits_for_a_lower_price_within_its_slack():
    terms, prices = demand([[[3600, 0, 0]]], slack=1), supply([[5, 3, 1]])
    assert usd_of(consult(terms, prices, HOUR_S)) == pytest.approx(3)
    patient = replace(terms, slack=np.array([2]))
    assert usd_of(consult(patient, prices, HOUR_S)) == pytest.approx(1)


def test_work_is_not_done_before_it_arrives():
    told = consult(demand([[[0, 3600]]], slack=1), supply([[1, 5]]), HOUR_S)
    assert usd_of(told) == pytest.approx(5)


def test_slack_ends_with_the_trace():
    told = consult(demand([[[3600]]], slack=3), supply([[2]]), HOUR_S)
    assert usd_of(told) == pytest.approx(2)


def test_nothing_runs_where_no_price_is_known():
    told = consult(
        demand([[[3600, 3600], [3600, 3600]]]),
        supply([[1, np.nan], [4, 4]], least=0.5),
        HOUR_S,
    )
    assert told.replicas[0, 1] == 0
    assert usd_of(told) == pytest.approx(0.5 * 1 + 0.5 * 4 + 1 * 4)


def test_the_minimum_is_paid_for_without_work():
    told = consult(demand([[[0, 0]]]), supply([[3, 3]], least=2), HOUR_S)
    assert usd_of(told) == pytest.approx(2 * 2 * 3)
    assert told.attained == pytest.approx([1])


def test_sunk_costs_are_paid_whatever_runs():
    told = consult(
        demand([[[3600, 0], [3600, 0]]]),
        supply([[0.1] * 2, [1] * 2], sunk_usd_per_hour=[7, 0]),
        HOUR_S,
    )
    assert usd_of(told) == pytest.approx(0.1 + 2 * 7)


def test_a_start_is_paid_from_the_order():
    told = consult(demand([[[0, 0, 3600, 0]]]), supply([[4] * 4], provision_s=900), HOUR_S)
    assert usd_of(told) == pytest.approx(4 * 1.25)


def test_a_replica_is_kept_where_a_start_costs_more():
    terms, prices = demand([[[3600, 0, 3600]]]), [[4.0] * 3]
    kept = consult(terms, supply(prices, provision_s=2 * HOUR_S, standing=[1]), HOUR_S)
    assert usd_of(kept) == pytest.approx(4 * 3)
    started = consult(terms, supply(prices, provision_s=HOUR_S / 2, standing=[1]), HOUR_S)
    assert usd_of(started) == pytest.approx(4 * 2.5)


def test_a_start_is_priced_at_the_least_of_the_buckets_in_which_it_may_provision():
    prices = supply([[8, 1, 8, 8, np.nan, 8]], provision_s=HOUR_S)
    assert prices.start_usd(HOUR_S) == pytest.approx(np.array([[8, 1, 1, 1, 8, 8]]))


def test_starts_cost_nothing_where_a_price_is_negative():
    assert (supply([[-1, 8]], provision_s=HOUR_S).start_usd(HOUR_S) == 0).all()


def test_negative_prices_are_taken_up_to_the_maximum():
    told = consult(demand([[[3600, 0]]]), supply([[2, -1]], most=5), HOUR_S)
    assert usd_of(told) == pytest.approx(2 - 5)


def test_the_dearest_requests_are_missed():
    # One of 200 may be missed: in the bucket with the higher price.
    told = consult(demand([[[3600, 3600]]], attainment=0.99), supply([[1, 10]]), HOUR_S)
    assert usd_of(told) == pytest.approx(1 + 10 * 0.98)
    assert told.attained == pytest.approx([0.99])


def test_the_kinds_of_a_group_share_what_may_be_missed():
    # The large requests are a tenth of the number and nine tenths of the work.
    told = consult(
        demand([[[400]], [[3600]]], requests=[[90], [10]], group=[0, 0], attainment=0.95),
        supply([[1]]),
        HOUR_S,
    )
    assert usd_of(told) == pytest.approx((400 + 1800) / 3600)


def test_where_requests_differ_the_missed_ones_are_the_largest():
    terms = demand([[[3600]]], attainment=0.9, spread=[[4]])
    assert usd_of(consult(terms, supply([[1]]), HOUR_S)) == pytest.approx(0.6)


def test_where_the_attainment_is_out_of_reach_tells_the_most_and_its_least_cost():
    told = consult(
        demand([[[7200, 0]], [[0, 3600]]], attainment=0.99), supply([[3, 3]], most=1), HOUR_S
    )
    assert not told.is_attainable
    assert told.attained == pytest.approx([0.5, 0.99], abs=1e-4)
    assert usd_of(told) == pytest.approx(3 * 1.99, rel=1e-4)


def test_work_in_a_bucket_in_which_nothing_can_be_had_is_missed():
    told = consult(demand([[[3600, 3600]]], attainment=0.99), supply([[1, np.nan]]), HOUR_S)
    assert not told.is_attainable
    assert told.attained == pytest.approx([0.5], abs=1e-4)


def test_a_bound_from_any_duals_is_not_above_the_cost():
    stated = OracleProgram(
        demand([[[7200, 1800], [3600, 900]]], slack=1, attainment=0.9),
        supply([[3, 2], [7, 1]], provision_s=600),
        HOUR_S,
        1.0,
        False,
    )
    told = consult(stated.demand, stated.supply, HOUR_S)
    random = np.random.default_rng(0)
    for _ in range(100):
        duals = random.normal(0, 3, len(stated.program.row_lower))
        assert weak_bound(stated.program, duals) <= told.cost_usd


def test_without_requests_the_minimum_is_all():
    told = consult(demand([[[0], [0]]]), supply([[3], [-1]], most=2), HOUR_S)
    assert usd_of(told) == pytest.approx(-2)


def test_a_bound_holds_where_time_is_over():
    random = np.random.default_rng(0)
    terms = demand(random.uniform(600, 36000, (4, 3, 48)).tolist(), slack=1, attainment=0.95)
    prices = supply(random.uniform(1, 5, (3, 48)).tolist(), most=40, provision_s=1800)
    late, told = (consult(terms, prices, HOUR_S, time_limit_s=s) for s in (0, np.inf))
    assert late.status == "Time limit reached"
    assert late.bound_usd <= usd_of(told)
    assert np.isnan(late.cost_usd)


def test_nothing_is_printed():
    # In a process of its own: HiGHS greets once.
    code = "from orchestrator.simulate.linear_program import _Quiet; _Quiet()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b""


def test_numbers_beyond_the_solver_are_refused():
    with pytest.raises(ValueError, match="too large"):
        consult(demand([[[1e200]]]), supply([[3]]), HOUR_S)


def test_slack_covers_a_request_at_the_end_of_its_bucket():
    assert [slack_buckets(s, 60) for s in (0, 1, 60, 61)] == [0, 1, 1, 2]


DEMAND = demand([[[3600, 3600], [3600, 3600]]])
SUPPLY = supply([[1, 1], [2, 2]])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"work_s": np.full((1, 2, 2), np.nan)}, "work has to be a number"),
        ({"work_s": np.full((1, 2, 2), -1.0)}, "work has to be a number"),
        ({"work_s": np.full((2, 2), 1.0)}, "an array of kinds, endpoints and buckets"),
        ({"work_s": np.full((1, 2, 2), NO)}, "kind 0 of group 0 is allowed at no endpoint"),
        ({"work_s": np.empty((1, 2, 0))}, "there are no buckets"),
        ({"requests": np.ones((1, 3))}, r"requests has shape \(1, 3\), not \(1, 2\)"),
        ({"requests": np.full((1, 2), np.nan)}, "requests have to be finite"),
        ({"slack": np.array([-1])}, "slack has to be"),
        ({"attainment": np.array([1.5])}, "a share from 0 to 1"),
        ({"attainment": np.array([np.nan])}, "a share from 0 to 1"),
        ({"group": np.array([1])}, "groups have to be numbers below 1"),
        ({"spread": np.full((1, 2), 0.5)}, "spread >= 1"),
    ],
)
def test_demand_that_cannot_be_is_refused(changed: dict[str, np.ndarray], said: str):
    with pytest.raises(ValueError, match=said):
        consult(replace(DEMAND, **changed), SUPPLY, HOUR_S)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"usd_per_replica_hour": np.ones((1, 2))}, "prices has shape"),
        ({"usd_per_replica_hour": np.full((2, 2), np.inf)}, "prices have to be finite"),
        ({"max_replicas": np.ones(3)}, "max_replicas has shape"),
        ({"max_replicas": np.full(2, np.inf)}, "max_replicas has to be finite"),
        ({"min_replicas": np.array([0.0, np.nan])}, "min_replicas has to be finite"),
        ({"min_replicas": np.array([0.0, 11.0])}, "endpoint 1 has min_replicas above"),
        ({"provision_s": np.array([0.0, -1.0])}, "not negative"),
        ({"standing": np.array([0.0, -1.0])}, "not negative"),
    ],
)
def test_supply_that_cannot_be_is_refused(changed: dict[str, np.ndarray], said: str):
    with pytest.raises(ValueError, match=said):
        consult(DEMAND, replace(SUPPLY, **changed), HOUR_S)


@pytest.mark.parametrize("bucket_s", [0.0, -1.0, np.nan, np.inf])
def test_a_bucket_without_time_is_refused(bucket_s: float):
    with pytest.raises(ValueError, match="bucket"):
        consult(DEMAND, SUPPLY, bucket_s)


@pytest.mark.parametrize("share", [0.0, 1.1, np.nan])
def test_a_utilization_that_cannot_be_is_refused(share: float):
    with pytest.raises(ValueError, match="utilization"):
        consult(DEMAND, SUPPLY, HOUR_S, max_utilization=share)
