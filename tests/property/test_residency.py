"""Whatever the configuration, the request and the state of the fleet: data stays where it may."""

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.explain import explain
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.view import View
from tests.worlds import questions, small, snapshot

EXAMPLES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "1000"))
CASES = settings(max_examples=EXAMPLES, deadline=None)

Case = tuple[Facts, View]


def feasible(decision: Decision) -> set[str]:
    return {v.candidate.endpoint for v in decision.verdicts if v.rejected_by is None}


@CASES
@given(questions())
def test_a_request_is_granted_only_to_zones_that_may_hold_it(case: Case) -> None:
    facts, view = case
    decision = decide(facts, view)
    workload = view.catalogue.workloads[facts.workload]
    if decision.grant is not None:
        zone = decision.grant.candidate.zone
        labels = (workload.data_class, facts.claimed, facts.session, facts.content)
        assert zone.max_data_class >= max(labels)
        assert zone.name in workload.allowed_zones
        assert not workload.jurisdictions or zone.jurisdiction in workload.jurisdictions
        assert set(workload.certifications) <= set(zone.certifications)


@CASES
@given(questions())
def test_with_a_stale_snapshot_only_zones_for_restricted_data_are_used(case: Case) -> None:
    facts, view = case
    decision = decide(facts._replace(snapshot_age_s=1e6), view)
    if decision.grant is not None:
        assert decision.grant.candidate.zone.max_data_class is DataClass.RESTRICTED


@CASES
@given(questions(), st.sampled_from(["claimed", "session", "content"]))
def test_raising_a_label_never_adds_a_candidate(case: Case, label: str) -> None:
    facts, view = case
    before = feasible(decide(facts, view))
    for data_class in DataClass:
        if data_class >= getattr(facts, label):
            raised = decide(facts._replace(**{label: data_class}), view)  # type: ignore[arg-type]
            assert feasible(raised) <= before


@CASES
@given(questions())
def test_what_is_granted_is_feasible_and_nothing_feasible_scores_lower(case: Case) -> None:
    decision = decide(*case)
    possible = [v for v in decision.verdicts if v.score is not None]
    if decision.grant is None:
        assert not possible
        assert decision.denied
    else:
        best = min(possible, key=lambda v: (v.score, v.candidate.endpoint))
        assert decision.grant.candidate.endpoint == best.candidate.endpoint
        assert decision.denied is None


@CASES
@given(questions())
def test_the_same_arguments_give_the_same_decision(case: Case) -> None:
    facts, view = case
    catalogue = view.catalogue
    again = Catalogue(catalogue.configuration.model_copy(deep=True), catalogue.version)
    other = View(again, view.snapshot.model_copy(deep=True))
    assert explain(decide(facts, view)) == explain(decide(facts, other))


@CASES
@given(questions(), st.data())
def test_removing_a_zone_changes_no_decision_that_did_not_use_it(
    case: Case, data: st.DataObject
) -> None:
    facts, view = case
    grant = decide(facts, view).grant
    zones = list(view.catalogue.zones)
    removed = data.draw(st.sampled_from(zones))
    if grant is None or grant.candidate.zone.name == removed:
        return
    smaller = without_zone(view.catalogue, removed)
    counts = {e: int(facts.inflight[c.number]) for e, c in view.catalogue.candidates.items()}  # type: ignore[index]
    again = decide(
        facts._replace(inflight=smaller.counts(counts)), View(smaller, view.snapshot)
    ).grant
    assert again is not None
    assert again.candidate.endpoint == grant.candidate.endpoint


def without_zone(catalogue: Catalogue, zone: str) -> Catalogue:
    """The configuration without a zone and all that lies in it."""
    raw = catalogue.configuration.model_dump(mode="json")
    raw["zones"] = [z for z in raw["zones"] if z["name"] != zone]
    raw["clusters"] = [c for c in raw["clusters"] if c["zone"] != zone]
    clusters = {c["name"] for c in raw["clusters"]}
    raw["pools"] = [p for p in raw["pools"] if p["cluster"] in clusters]
    pools = {p["name"] for p in raw["pools"]}
    for model in raw["models"]:
        for variant in model["variants"]:
            variant["pools"] = [p for p in variant["pools"] if p in pools]
        model["variants"] = [v for v in model["variants"] if v["pools"]]
    raw["models"] = [m for m in raw["models"] if m["variants"]]
    models = {m["name"] for m in raw["models"]}
    for workload in raw["workloads"]:
        workload["models"] = [m for m in workload["models"] if m in models]
        for field in ("allowed_zones", "preferred_zones"):
            workload[field] = [z for z in workload[field] if z != zone]
        if workload["burst"]:
            workload["burst"]["pools"] = [p for p in workload["burst"]["pools"] if p in pools]
            if not workload["burst"]["pools"]:
                workload["burst"] = None
    raw["workloads"] = [w for w in raw["workloads"] if w["models"] and w["allowed_zones"]]
    return Catalogue(Configuration.model_validate(raw), catalogue.version)


@CASES
@given(questions())
def test_a_failed_endpoint_is_not_granted_again(case: Case) -> None:
    facts, view = case
    grant = decide(facts, view).grant
    if grant is not None:
        excluded = {**facts.excluded, grant.candidate.endpoint: "failed this request"}
        second = decide(facts._replace(excluded=excluded), view).grant
        assert second is None or second.candidate.endpoint != grant.candidate.endpoint


def test_nobody_but_decide_can_make_a_grant() -> None:
    candidate = small().candidates["home-gpu/m-fp16"]
    with pytest.raises(TypeError, match="decide"):
        Grant(candidate, "assistant", DataClass.PUBLIC, "v1", 0, None, object())


def test_a_grant_cannot_be_turned_to_another_endpoint() -> None:
    catalogue = small()
    grant = decide(Facts("assistant", "m"), View(catalogue, snapshot())).grant
    assert grant is not None
    with pytest.raises((TypeError, ValueError)):
        replace(grant, candidate=catalogue.candidates["cloud-gpu/m-fp16"])
