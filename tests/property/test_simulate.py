"""Whatever arrives, comes late, is dear or is taken away: a simulation loses nothing, breaks no
limit, sends nothing where it may not go, and comes out the same again."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.capacity_model import CapacityModel, Troubles
from orchestrator.simulate.policies import CapacityPolicy, Planner
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting, simulate
from orchestrator.simulate.tally import Tally
from tests.worlds import timed

EPOCH_S = 1_700_000_000.0
POLICIES: dict[str, Callable[[Catalogue], CapacityPolicy]] = {"planner": Planner, **BASELINES}


WORLD = timed()
requests = st.lists(
    st.tuples(
        st.floats(0, 120),
        st.integers(1, 4000),
        st.integers(1, 600),
        st.integers(0, 1),
    ),
    max_size=60,
)
changes = st.lists(st.tuples(st.floats(1, 50), st.just(math.nan) | st.floats(0.1, 9)), max_size=6)


def series(steps: list[tuple[float, float]], first: float) -> Series:
    times_s = [0.0, *np.cumsum([step for step, _ in steps]).tolist()]
    return Series(times_s, [first, *(value for _, value in steps)])


settings_of = st.builds(
    lambda price, supply, starts, failures, seed: Setting(
        WORLD,
        Prices(WORLD.configuration, {"cloud-gpu": series(price, 2.0)}, EPOCH_S),
        EPOCH_S,
        supply={"cloud-gpu": series(supply, 2.0)},
        troubles=Troubles(starts, failures),
        seed=seed,
    ),
    changes,
    changes,
    st.sampled_from([0, 0.5]),
    st.sampled_from([0, 60]),
    st.integers(0, 3),
)


def arrivals(rows: list[tuple[float, int, int, int]]) -> Arrivals:
    at_s, prompt, output, group = zip(*sorted(rows), strict=True) if rows else ((), (), (), ())
    return Arrivals(
        np.array(at_s, float),
        np.array(prompt, float),
        np.array(output, float),
        np.array(group, int),
    )


@dataclass
class Watched:
    """A policy, with what it saw and wanted."""

    policy: CapacityPolicy
    seen: list[tuple[float, Observation, Plan]]

    @property
    def name(self) -> str:
        return self.policy.name

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        planned = self.policy.plan(seen, version, now_s)
        self.seen.append((now_s, seen, planned))
        return planned


def told(tally: Tally) -> tuple[object, ...]:
    return (tally.workloads, tally.usd_by_pool, tally.gpu_hours_by_pool, tally.points)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=40, deadline=None)
@given(rows=requests, setting=settings_of)
def test_what_arrives_is_served_or_shed_and_nothing_goes_where_it_may_not(
    name: str, rows: list[tuple[float, int, int, int]], setting: Setting
) -> None:
    tally = simulate(setting, [arrivals(rows)], POLICIES[name](WORLD))
    for group, (workload, of) in enumerate(tally.workloads.items()):
        assert of.arrived == sum(row[3] == group for row in rows)
        assert of.arrived == of.served + of.shed
        assert of.in_slo <= of.served
        assert of.violations == 0
        if workload == "records":
            assert set(of.by_zone) <= {"onprem"}
    state = tally.model.state
    assert not state.endpoints["inflight"].any()
    assert not state.groups["waiting"].any()
    assert state.moment["events"][0] == 0


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=20, deadline=None)
@given(rows=requests, setting=settings_of)
def test_pools_stay_within_their_limits_at_every_tick_and_time_only_rises(
    name: str, rows: list[tuple[float, int, int, int]], setting: Setting
) -> None:
    watched = Watched(POLICIES[name](WORLD), [])
    simulate(setting, [arrivals(rows)], watched)
    times_s = [now_s for now_s, _, _ in watched.seen]
    assert times_s == sorted(times_s)
    for _, seen, planned in watched.seen:
        for endpoint, candidate in WORLD.candidates.items():
            assert planned.targets[endpoint] <= candidate.pool.max_replicas
            assert seen.standing[endpoint] <= candidate.pool.max_replicas
            assert seen.endpoints[endpoint].ready_replicas <= seen.replicas[endpoint]


@settings(max_examples=25, deadline=None)
@given(rows=requests, setting=settings_of, cut=st.integers(0, 60))
def test_the_same_seed_gives_the_same_result_however_the_trace_is_cut(
    rows: list[tuple[float, int, int, int]], setting: Setting, cut: int
) -> None:
    whole = arrivals(rows)
    parts = [Arrivals(*(c[:cut] for c in whole)), Arrivals(*(c[cut:] for c in whole))]
    first = simulate(setting, [whole], Planner(WORLD))
    again = simulate(setting, parts, Planner(WORLD))
    assert told(first) == told(again)


@settings(max_examples=25, deadline=None)
@given(rows=requests, setting=settings_of)
def test_the_bill_is_what_was_there_times_its_price(
    rows: list[tuple[float, int, int, int]], setting: Setting
) -> None:
    watched = Watched(Planner(WORLD), [])
    tally = simulate(setting, [arrivals(rows)], watched)
    observations = [seen for _, seen, _ in watched.seen]
    usd = sum(
        seen.replicas[f"{pool}/m-fp16"] * setting.tick_s / 3600 * quote.usd_per_gpu_hour
        for before, seen in pairwise(observations)
        for pool, quote in before.quotes.items()
    )
    assert sum(tally.usd_by_pool.values()) == pytest.approx(usd, abs=0.01)
    assert sum(sum(hour.values()) for hour in tally.usd_by_hour) == pytest.approx(
        sum(tally.usd_by_pool.values())
    )


def test_an_answer_that_can_never_be_ended_is_given_up() -> None:
    setting = Setting(
        WORLD,
        Prices(WORLD.configuration, {"cloud-gpu": Series([0.0], [2.0])}, EPOCH_S),
        EPOCH_S,
        supply={"home-gpu": Series([0.0, 10.0], [1.0, 0.0])},
    )
    tally = simulate(setting, [arrivals([(1.0, 100, 4000, 1)])], Planner(WORLD))
    records = tally.workloads["records"]
    assert (records.arrived, records.served, records.shed) == (1, 0, 1)
    assert tally.duration_s < 700


def test_a_request_that_was_sent_where_it_may_not_go_is_counted() -> None:
    setting = Setting(
        WORLD, Prices(WORLD.configuration, {"cloud-gpu": Series([0.0], [2.0])}, EPOCH_S), EPOCH_S
    )
    tally = simulate(setting, [arrivals([(1.0, 100, 10, 1)])], Planner(WORLD))
    tally.model.state.sent[1, WORLD.candidates["cloud-gpu/m-fp16"].number] = 3
    tally.close(CapacityModel(tally.model, {}, Troubles(), np.random.default_rng(0)))
    assert tally.workloads["records"].violations == 3
    assert tally.workloads["assistant"].violations == 0
