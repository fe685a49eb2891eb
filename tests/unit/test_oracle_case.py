"""What the oracle is told about a simulation, on cases worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.bound import bound
from orchestrator.simulate.oracle_case import SHORTEST, Case, case_of
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting
from tests.worlds import timed

EPOCH_S = 1_700_000_000.0
FAIR = {"assistant": 0.9, "records": 1.0}
HOME, CLOUD = 0, 1
ASSISTANT, RECORDS = 0, 1


def setting(usd: Series | None = None, **others: Any) -> Setting:
    catalogue = others.pop("catalogue", timed())
    prices = {"cloud-gpu": usd or Series([0.0], [2.0])}
    return Setting(catalogue, Prices(catalogue.configuration, prices, EPOCH_S), EPOCH_S, **others)


def asked(*rows: tuple[float, int, int, int]) -> list[Arrivals]:
    at_s, prompt, output, group = zip(*rows, strict=True)
    return [
        Arrivals(
            np.array(at_s, float), np.array(prompt, float), np.array(output, float), np.array(group)
        )
    ]


def work_s(case: Case, group: int, endpoint: int, bucket: int = 0) -> float:
    of_group = case.demand.work_s[case.demand.group == group, endpoint, bucket]
    return float(of_group[np.isfinite(of_group)].sum())


def test_a_request_takes_its_reading_and_its_part_of_full_steps() -> None:
    case = case_of(setting(), asked((1, 1000, 101, ASSISTANT)), FAIR, 60)
    # Four sequences at 50 tokens/s each come to 200 tokens/s.
    assert work_s(case, ASSISTANT, HOME) == pytest.approx(1000 / 5000 + 100 / 200)


def test_what_holds_most_of_the_cache_takes_most_of_a_step() -> None:
    case = case_of(setting(), asked((1, 2899, 101, ASSISTANT)), FAIR, 60)
    # While it grows to 3000 tokens it holds 2949.5 of 6000 on average, and takes as much of the
    # 10 ms of a step, beside what each sequence more adds to that.
    alone_s, more_s = 0.01, (4 / 200 - 0.01) / 3
    expected_s = 2899 / 5000 + 100 * (more_s + (alone_s - more_s) * 2949.5 / 6000)
    assert work_s(case, ASSISTANT, HOME) == pytest.approx(expected_s)


def test_an_objective_for_the_time_between_tokens_makes_batches_smaller() -> None:
    raw = timed().configuration.model_dump(mode="json")
    raw["workloads"][0]["slo"]["itl_p95_s"] = 0.01 + (4 / 200 - 0.01) / 3
    hurried = Catalogue(Configuration.model_validate(raw), "v1")
    case = case_of(setting(catalogue=hurried), asked((1, 10, 101, ASSISTANT)), FAIR, 60)
    # Two sequences.
    assert work_s(case, ASSISTANT, HOME) == pytest.approx(10 / 5000 + 100 * 0.04 / 3 / 2)


def test_requests_stay_where_their_data_may_be() -> None:
    case = case_of(setting(), asked((1, 100, 10, ASSISTANT), (2, 100, 10, RECORDS)), FAIR, 60)
    assert case.pools == ("home-gpu", "cloud-gpu")
    assert work_s(case, ASSISTANT, CLOUD) > 0
    assert work_s(case, RECORDS, HOME) > 0
    assert work_s(case, RECORDS, CLOUD) == 0


def test_the_trace_is_followed_by_the_time_that_its_last_answer_has() -> None:
    case = case_of(setting(), asked((61, 100, 501, ASSISTANT)), FAIR, 10)
    # 2 s to the first token and 500 of 50 ms.
    assert set(case.demand.slack.tolist()) <= {0, 1, 3}
    assert case.demand.requests.shape[1] == 7 + 3
    assert case.demand.requests.sum(axis=0).tolist() == [0] * 6 + [1, 0, 0, 0]


def test_what_nobody_can_answer_in_time_is_what_is_missed() -> None:
    rows = [(n, 100, 10, ASSISTANT) for n in range(19)] + [(19, 11_000, 10, ASSISTANT)]
    case = case_of(setting(), asked(*rows), FAIR, 60)
    assert case.hopeless[ASSISTANT] == pytest.approx(0.05)
    assert case.demand.requests.sum() == 19
    assert case.demand.attainment[ASSISTANT] == pytest.approx(0.9 / 0.95)
    assert bound(setting(), asked(*rows), FAIR).is_attainable
    short = bound(setting(), asked(*rows), FAIR | {"assistant": 0.96})
    assert not short.is_attainable
    assert short.attained["assistant"] == pytest.approx(0.95, abs=1e-3)


def test_the_minimum_stands_and_is_paid_for_until_the_last_arrival() -> None:
    case = case_of(setting(), asked((0, 10, 1, ASSISTANT), (99.5, 10, 1, ASSISTANT)), FAIR, 60)
    supply = case.supply
    assert supply.standing is not None
    assert supply.sunk_usd_per_hour is not None
    assert supply.standing.tolist() == [1, 0]
    assert supply.usd_per_replica_hour[HOME].tolist() == [0] * supply.usd_per_replica_hour.shape[1]
    hours = supply.usd_per_replica_hour.shape[1] * 60 / 3600
    assert supply.sunk_usd_per_hour[HOME] * hours == pytest.approx(0.5 * 100 / 3600)


def test_rented_replicas_cost_the_least_of_a_bucket_and_nothing_without_a_price() -> None:
    usd = Series([0.0, 90.0, 150.0, 200.0], [3.0, 2.0, 4.0, math.nan])
    rows = asked((0, 10, 1, ASSISTANT), (239, 10, 1, ASSISTANT))
    supply = case_of(setting(usd), rows, FAIR, 60).supply
    assert supply.usd_per_replica_hour[CLOUD, :4].tolist() == [3, 2, 2, 0]
    assert supply.provision_s[CLOUD] == pytest.approx(60 * SHORTEST)


def test_a_pool_has_what_is_offered_at_the_ticks() -> None:
    limits = {"cloud-gpu": Series([0.0, 30.5, 60.0], [2.0, 1.0, math.nan])}
    rows = asked((0, 10, 1, ASSISTANT), (100, 10, 1, ASSISTANT))
    supply = case_of(setting(supply=limits), rows, FAIR, 60).supply
    assert supply.max_replicas[CLOUD, :2].tolist() == pytest.approx([(31 * 2 + 29) / 60, 0])


def test_a_bucket_is_of_whole_ticks() -> None:
    with pytest.raises(ValueError, match="whole ticks of 7 s"):
        case_of(setting(tick_s=7.0), asked((0, 10, 1, ASSISTANT)), FAIR, 60)
    assert bound(setting(tick_s=7.0), asked((0, 10, 1, ASSISTANT)), FAIR, 60).bucket_s == 63


def test_the_bound_is_what_home_costs_while_it_suffices() -> None:
    told = bound(setting(), asked((0, 100, 10, ASSISTANT), (600, 100, 10, RECORDS)), FAIR)
    assert told.status == "Optimal"
    assert told.usd == pytest.approx(0.5 * 601 / 3600, rel=1e-6)
    assert told.usd_by_pool["cloud-gpu"] == pytest.approx(0, abs=1e-6)
    assert told.slo_attainment >= 0.95


def test_without_an_arrival_there_is_no_bound() -> None:
    with pytest.raises(ValueError, match="nothing arrives"):
        bound(setting(), [], FAIR)
