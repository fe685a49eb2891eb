"""What one endpoint carries: sequences at once, work of a request, and how many are late."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.replica_model import ITL_MARGIN, ReplicaModel, Typical
from orchestrator.config.spec import Configuration, Performance, Slo
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting, simulate
from tests.worlds import timed

HOME = "home-gpu/m-fp16"
SEQUENCES = 16
PERFORMANCE: dict[str, Any] = {
    "accelerator": "L40S",
    "prefill_tokens_per_s": 5000,
    "decode_tokens_per_s": 800,
    "itl_s": 0.01,
    "source": "assumed",
}
MORE_S = (SEQUENCES / 800 - 0.01) / (SEQUENCES - 1)
"""By which a sequence more makes a step longer."""
CHAT = Typical(prompt_tokens=400, output_tokens=100)
LOOSE = Slo(ttft_p95_s=2)


def candidate(**performance: Any) -> Candidate:
    home = timed().candidates[HOME]
    return replace(
        home,
        variant=home.variant.model_copy(update={"max_num_seqs": SEQUENCES}),
        performance=Performance(**PERFORMANCE | performance),
    )


def model(slo: Slo = LOOSE, typical: Typical = CHAT, **performance: Any) -> ReplicaModel:
    return ReplicaModel(candidate(**performance), typical, slo)


def test_a_batch_is_as_large_as_the_engine_allows() -> None:
    assert model().batch == SEQUENCES


def test_a_batch_is_no_larger_than_the_cache_holds_prompts_and_half_of_the_answers() -> None:
    assert model(kv_cache_tokens=10 * (400 + 50)).batch == pytest.approx(10)
    assert model(kv_cache_tokens=100).batch == 1, "one is always taken"


def test_a_batch_is_no_larger_than_the_objective_for_tokens_allows() -> None:
    slo = Slo(ttft_p95_s=2, itl_p95_s=0.02)
    batch = model(slo).batch
    assert 1 < batch < SEQUENCES
    # A token takes a step, and its share of the prompts that are read beside it.
    step_s = 0.01 + MORE_S * (batch - 1)
    assert step_s + batch * 400 / 5000 / 100 == pytest.approx(ITL_MARGIN * 0.02)
    assert model(Slo(ttft_p95_s=2, itl_p95_s=0.001)).batch == 1, "one is always taken"


def test_a_request_takes_its_prompt_and_its_share_of_the_steps_that_its_answer_lasts() -> None:
    assert model().work_s == pytest.approx(400 / 5000 + 100 / 800)
    alone = model(kv_cache_tokens=1)
    assert alone.work_s == pytest.approx(400 / 5000 + 100 * 0.01)


def test_answers_without_tokens_take_their_prompts_alone() -> None:
    embeddings = model(typical=Typical(prompt_tokens=400, output_tokens=0))
    assert embeddings.work_s == pytest.approx(400 / 5000)


def test_nothing_is_late_where_nothing_comes_and_all_where_nothing_serves() -> None:
    assert model().late_share(0, 0) == 0
    assert model().late_share(0, 3) == 0
    assert model().late_share(1, 0) == 1
    assert model().most_rps(0, 0.01) == 0


def test_what_replicas_carry_grows_faster_than_their_number() -> None:
    """Several even out what one cannot."""
    one, ten = model().most_rps(1, 0.01), model().most_rps(10, 0.01)
    assert 10 * one < ten < 10 / model().work_s


def test_requests_that_come_in_clumps_are_late_more_often() -> None:
    clumped = model(typical=replace(CHAT, variation=8))
    for rps in (2, 3, 4):
        assert clumped.late_share(rps, 1) > model().late_share(rps, 1)


def test_an_objective_shorter_than_a_prompt_takes_is_met_while_a_server_is_free() -> None:
    at_once = model(Slo(ttft_p95_s=0.01))
    assert at_once.late_share(0.01, 1) < 0.1
    assert at_once.late_share(4, 1) > 0.5


@pytest.mark.parametrize("replicas", [1, 20, 80, 300])
def test_a_share_rises_with_the_rate_from_none_to_all(replicas: int) -> None:
    full_rps = replicas / model().work_s
    rates = np.linspace(0.3, 2, 2000) * full_rps
    shares = np.array([model().late_share(float(rps), replicas) for rps in rates])
    assert shares[0] < 1e-3
    assert shares[-1] > 0.99
    assert np.diff(shares).min() > -1e-6


typicals = st.builds(
    Typical,
    prompt_tokens=st.floats(0, 1e6),
    output_tokens=st.floats(0, 1e5),
    variation=st.floats(1, 1e4),
)
objectives = st.builds(
    Slo, ttft_p95_s=st.floats(1e-3, 1e3), itl_p95_s=st.none() | st.floats(1e-4, 10)
)


@given(typicals, objectives, st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_share_is_one_and_never_rises_with_replicas(
    typical: Typical, slo: Slo, rps: float, replicas: float, more: float
) -> None:
    some = model(slo, typical)
    share = some.late_share(rps, replicas)
    assert 0 <= share <= 1
    assert some.late_share(rps, replicas + more) <= share + 1e-6


@given(typicals, objectives, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 100))
def test_a_share_never_falls_with_the_rate(
    typical: Typical, slo: Slo, rps: float, more: float, replicas: float
) -> None:
    some = model(slo, typical)
    assert some.late_share(rps + more, replicas) >= some.late_share(rps, replicas) - 1e-6


@given(typicals, objectives, st.floats(0.01, 1), st.integers(1, 100))
def test_what_is_carried_is_on_time(typical: Typical, slo: Slo, late: float, replicas: int) -> None:
    some = model(slo, typical)
    assert some.late_share(some.most_rps(replicas, late), replicas) <= late


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_the_simulator_finds_the_same_limit(replicas: int) -> None:
    """Where the model says that one request in twenty is late: in a simulation of steps and slots,
    fewer are at 0.85 of that rate, and more at 1.15."""
    raw = timed().configuration.model_dump(mode="json")
    raw["pools"][0] |= {"min_replicas": replicas, "max_replicas": replicas}
    raw["models"][0]["variants"][0] |= {"max_num_seqs": SEQUENCES, "performance": [PERFORMANCE]}
    raw["workloads"][0]["slo"] = {"ttft_p95_s": 2}
    world = Catalogue(Configuration.model_validate(raw), "v1")
    limit = model().most_rps(replicas, 0.05)
    assert (
        simulated_late_share(world, 0.85 * limit) < 0.05 < simulated_late_share(world, 1.15 * limit)
    )


def simulated_late_share(world: Catalogue, rps: float) -> float:
    """Of the prompts' first tokens, at a constant rate."""
    random, count = np.random.default_rng(1), int(600 * rps)
    arrivals = Arrivals(
        np.cumsum(random.exponential(1 / rps, count)),
        np.ceil(random.gamma(2, CHAT.prompt_tokens / 2, count)),
        np.ceil(random.exponential(CHAT.output_tokens, count)),
        np.zeros(count, int),
    )
    prices = Prices(world.configuration, {"cloud-gpu": Series([0.0], [2.0])}, 0.0)
    tally = simulate(Setting(world, prices, 0.0), [arrivals], BASELINES["static"](world))
    of = tally.workloads["assistant"]
    return (of.late_ttft + of.shed) / of.arrived
