"""Whatever the configuration, the request and the state of the fleet: data stays where it may."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from orchestrator.config.data_class import DataClass
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.explain import explain
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.snapshot import Snapshot
from tests.worlds import questions, small

CASES = settings(max_examples=1000, deadline=None)

Case = tuple[Facts, Catalogue, Snapshot]


def feasible(decision: Decision) -> set[str]:
    return {v.candidate.endpoint for v in decision.verdicts if v.rejected_by is None}


@CASES
@given(questions())
def test_a_request_is_granted_only_to_zones_that_may_hold_it(case: Case) -> None:
    facts, catalogue, snapshot = case
    decision = decide(facts, catalogue, snapshot)
    workload = catalogue.workloads[facts.workload]
    if decision.grant is not None:
        zone = decision.grant.candidate.zone
        assert zone.name in workload.allowed_zones
        assert zone.max_data_class >= max(workload.data_class, facts.data_class)


@CASES
@given(questions())
def test_with_a_stale_snapshot_only_zones_for_restricted_data_are_used(case: Case) -> None:
    facts, catalogue, snapshot = case
    decision = decide(replace(facts, snapshot_age_s=1e6), catalogue, snapshot)
    if decision.grant is not None:
        assert decision.grant.candidate.zone.max_data_class is DataClass.RESTRICTED


@CASES
@given(questions())
def test_raising_the_class_never_adds_a_candidate(case: Case) -> None:
    facts, catalogue, snapshot = case
    before = feasible(decide(facts, catalogue, snapshot))
    for data_class in DataClass:
        if data_class >= facts.data_class:
            raised = decide(replace(facts, data_class=data_class), catalogue, snapshot)
            assert feasible(raised) <= before


@CASES
@given(questions())
def test_the_same_arguments_give_the_same_decision(case: Case) -> None:
    facts, catalogue, snapshot = case
    again = Catalogue(catalogue.configuration.model_copy(deep=True), catalogue.version)
    assert explain(decide(facts, catalogue, snapshot)) == explain(decide(facts, again, snapshot))


@CASES
@given(questions())
def test_a_failed_endpoint_is_not_granted_again(case: Case) -> None:
    facts, catalogue, snapshot = case
    grant = decide(facts, catalogue, snapshot).grant
    if grant is not None:
        excluded = {**facts.excluded, grant.candidate.endpoint: "failed this request"}
        second = decide(replace(facts, excluded=excluded), catalogue, snapshot).grant
        assert second is None or second.candidate.endpoint != grant.candidate.endpoint


def test_nobody_but_decide_can_make_a_grant() -> None:
    candidate = small().candidates["home-gpu/m-fp16"]
    with pytest.raises(TypeError, match="decide"):
        Grant(candidate, "assistant", DataClass.PUBLIC, "v1", 0, None, object())
