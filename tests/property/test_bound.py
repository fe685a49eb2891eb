"""Whatever arrives and whatever it costs: no policy serves as much in time for less."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.bound import bound
from orchestrator.simulate.capacity_model import Troubles
from orchestrator.simulate.policies import CapacityPolicy, Planner
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting, simulate
from tests.worlds import timed

EPOCH_S = 1_700_000_000.0


@dataclass
class Lavish:
    """All that can be had, all the time: what it serves in time costs it the most."""

    catalogue: Catalogue
    name: str = "lavish"

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        targets = {e: c.pool.max_replicas for e, c in self.catalogue.candidates.items()}
        bursts = {"assistant": BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu")}
        return Plan(bursts, targets, dict.fromkeys(targets, self.name), {})


POLICIES: dict[str, Callable[[Catalogue], CapacityPolicy]] = {
    "planner": Planner,
    "lavish": Lavish,
    **BASELINES,
}


def world(owned: int, most: int, provision_s: float, cloud: dict[str, float]) -> Catalogue:
    """Owned replicas and rented ones, which may be faster or slower."""
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
    home, away = raw["pools"]
    home |= {"min_replicas": owned, "max_replicas": most}
    away |= {"accelerator": "other", "max_replicas": 3, "provision_s": provision_s}
    variant = raw["models"][0]["variants"][0]
    variant["performance"].append({"accelerator": "other", "source": "assumed", **cloud})
    return Catalogue(Configuration.model_validate(raw), "v1")


worlds = st.builds(
    world,
    st.integers(1, 2),
    st.integers(2, 3),
    st.sampled_from([0.5, 10.0, 60.0]),
    st.fixed_dictionaries(
        {
            "prefill_tokens_per_s": st.sampled_from([500, 5000, 20_000]),
            "decode_tokens_per_s": st.sampled_from([60, 400]),
            "itl_s": st.sampled_from([0.005, 0.02]),
            "kv_cache_tokens": st.sampled_from([3000, 50_000]),
        }
    ),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Setting, list[Arrivals]]:
    catalogue = draw(worlds)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    to_s = draw(st.sampled_from([5.0, 60.0, 300.0]))
    # Up to what home and cloud together have no time for.
    count = max(1, int(to_s * draw(st.sampled_from([0.5, 5, 10]))))
    at_s = np.sort(random.uniform(0, to_s, count))
    whole = Arrivals(
        at_s,
        np.clip(random.lognormal(5.5, 1, count).round(), 20, 3000),
        np.clip(random.lognormal(3, draw(st.sampled_from([0.1, 1])), count).round(), 1, 300),
        random.choice(2, count, p=[0.8, 0.2]),
    )
    cut = draw(st.integers(0, count))
    blocks = [Arrivals(*(c[:cut] for c in whole)), Arrivals(*(c[cut:] for c in whole))]
    usd = random.uniform(0.5, 4, 20)
    usd[random.random(20) < draw(st.sampled_from([0.0, 0.3]))] = math.nan
    prices_s, limits_s = np.arange(20) * 17.0, np.arange(20) * to_s / 17
    limits = {
        "cloud-gpu": Series(limits_s.tolist(), random.integers(0, 4, 20).astype(float).tolist())
    }
    setting = Setting(
        catalogue,
        Prices(
            catalogue.configuration,
            {"cloud-gpu": Series(prices_s.tolist(), usd.tolist())},
            EPOCH_S,
        ),
        EPOCH_S,
        supply=limits if draw(st.booleans()) else {},
        troubles=draw(st.sampled_from([Troubles(), Troubles(0.3, 30)])),
        tick_s=draw(st.sampled_from([1.0, 5.0])),
        seed=draw(st.integers(0, 5)),
    )
    return setting, blocks


@pytest.mark.parametrize("name", POLICIES)
@settings(deadline=None, max_examples=25)
@given(case=cases(), bucket_s=st.sampled_from([5.0, 30.0, 100.0]))
def test_no_policy_costs_less_than_the_bound_for_what_it_serves_in_time(
    name: str, case: tuple[Setting, list[Arrivals]], bucket_s: float
) -> None:
    setting, blocks = case
    tally = simulate(setting, blocks, POLICIES[name](setting.catalogue))
    reached = {workload: of.slo_attainment for workload, of in tally.workloads.items()}
    least = bound(setting, blocks, reached, bucket_s)
    assert least.is_attainable
    assert least.usd <= sum(tally.usd_by_pool.values()) * (1 + 1e-6) + 1e-9
