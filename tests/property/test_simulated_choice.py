"""What a simulation makes of what `decide()` has said of each candidate is what `decide()` decides,
whatever was asked before, and whatever has changed since."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit  # type: ignore[attr-defined]

from orchestrator.gateway.expected_wait import expected_wait
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import Hold, Snapshot
from orchestrator.policy.view import View
from orchestrator.simulate.decider import REASONS, Decider
from orchestrator.simulate.fleet_model import GATEWAY, FleetModel
from orchestrator.simulate.kernel.choice import (
    NEVER,
    SATURATED,
    UNKNOWN,
    choose,
    expected_wait_s,
    remember,
    rounded_prompt,
)
from orchestrator.simulate.tables import NOBODY, Scores, State
from tests.worlds import catalogues, snapshots


@njit  # type: ignore[untyped-decorator]
def chosen(state: State, scores: Scores, number: int) -> tuple[int, int]:
    if state.moment[0].asks != NOBODY:
        remember(state, scores)
    found: tuple[int, int] = choose(state, scores, number)
    return found


@njit  # type: ignore[untyped-decorator]
def waits_s(state: State, scores: Scores, number: int, smaller: int, ahead: int) -> float:
    wait_s: float = expected_wait_s(state, scores, number, smaller, ahead)
    return wait_s


def decided(facts: Facts, view: View) -> Decision:
    """As the gateway asks."""
    decision = decide(facts, view)
    workload = view.catalogue.workloads[facts.workload]
    if decision.grant is None and workload.when_infeasible.min_quality is not None:
        return decide(facts._replace(smaller_variant=True), view)
    return decision


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Catalogue, list[Snapshot]]:
    catalogue = draw(catalogues())
    pools = list(catalogue.pools)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        snapshot = draw(snapshots(catalogue))
        # This gateway is the only one.
        states = {
            endpoint: state.model_copy(update={"inflight": {}})
            for endpoint, state in snapshot.endpoints.items()
        }
        holds = dict.fromkeys(draw(st.sets(st.sampled_from(pools), max_size=1)), Hold.DRAINED)
        found.append(snapshot.model_copy(update={"endpoints": states, "holds": holds}))
    return catalogue, found


@settings(max_examples=150, deadline=None)
@given(fleet=fleets(), data=st.data())
def test_the_choice_is_the_decision(
    fleet: tuple[Catalogue, list[Snapshot]], data: st.DataObject
) -> None:
    catalogue, states = fleet
    model = FleetModel(catalogue)
    decider, state = Decider(model), model.state
    for snapshot in states:
        decider.follow(snapshot)
        view = View(catalogue, snapshot, GATEWAY)
        for _ in range(4):
            inflight = state.endpoints["inflight"]
            for number in range(len(inflight)):
                inflight[number] = data.draw(st.integers(0, 12))
            group = data.draw(st.integers(0, len(model.workloads) - 1))
            prompt = data.draw(st.sampled_from([1, 500, 3000]))
            state.requests["group"][0], state.requests["prompt_tokens"][0] = group, prompt
            found, smaller = chosen(state, model.scores, 0)
            while found == UNKNOWN:
                decider.answer()
                found, smaller = chosen(state, model.scores, 0)
            workload = model.workloads[group]
            facts = Facts(
                workload=workload.name,
                model=workload.models[0],
                prompt_tokens=rounded_prompt(prompt),
                inflight=inflight.copy(),
            )
            decision = decided(facts, view)
            if decision.grant is not None:
                assert found == decision.grant.candidate.number
            else:
                assert found == REASONS.get(decision.denied or "", NEVER)
            if found == SATURATED:
                seen = expected_wait(decision, 3)
                wait_s = waits_s(state, model.scores, 0, smaller, 3)
                assert np.isnan(wait_s) != seen.is_measured
                if seen.is_measured:
                    np.testing.assert_allclose(wait_s, seen.first_token_s)
