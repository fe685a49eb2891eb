"""What a change of the rules would move, and why; and what data would newly reach a zone."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.config.data_class import DataClass
from orchestrator.config.diff import Difference, differences
from orchestrator.config.load import load
from orchestrator.config.spec import Configuration, Zone
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.plan import Move, Plan, Reach, plan, reaches, situations, typical_requests
from orchestrator.policy.view import View
from tests.unit.test_config import copy
from tests.worlds import catalogues, questions, small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
SITUATIONS = ["at rest", "all ready", "bursting to cloud-gpu", "home down"]


def changed(**sections: Any) -> Catalogue:
    """The small world with fields changed: section={name: {field: value}}."""
    raw = small().configuration.model_dump(mode="json")
    for section, objects in sections.items():
        for name, fields in objects.items():
            (found,) = (o for o in raw[section] if o["name"] == name)
            found.update(fields)
    return Catalogue(Configuration.model_validate(raw), "v2")


def without(workload: str) -> Catalogue:
    raw = small().configuration.model_dump(mode="json")
    raw["workloads"] = [w for w in raw["workloads"] if w["name"] != workload]
    return Catalogue(Configuration.model_validate(raw), "v2")


def planned(before: Catalogue, after: Catalogue, requests: list[Facts] | None = None) -> Plan:
    views = situations(before, after, {"cloud-gpu": 2.0})
    asked = typical_requests(before, after) if requests is None else requests
    return plan(asked, (before, views[0]), (after, views[1]))


def the_move(found: Plan, situation: str) -> Move:
    (move,) = (m for m in found.moves if situation in m.situations)
    return move


def test_the_same_rules_move_nothing() -> None:
    found = planned(small(), changed())
    assert found.moves == ()
    assert found.reaches == ()
    assert all(g.before == g.after for g in found.groups)


def test_a_lower_ceiling_brings_requests_home_by_the_rule_of_the_price() -> None:
    after = changed(workloads={"assistant": {"price_ceiling": {"usd_per_gpu_hour": 1.5}}})
    requests = [Facts("assistant", "m")] * 5 + [Facts("records", "m")]
    found = planned(small(), after, requests)
    move = the_move(found, "bursting to cloud-gpu")
    assert (str(move.before), str(move.after)) == (CLOUD, HOME)
    assert (move.workload, move.requests) == ("assistant", 5)
    assert str(the_move(found, "home down").after) == "denied: no_capacity"
    assert {m.rule for m in found.moves} == {"price"}
    assert "2.00 USD per GPU-hour" in move.sentence
    assert "ceiling of 1.50" in move.sentence


def test_shares_and_denials_are_counted_before_and_after() -> None:
    after = changed(zones={"cloud": {"max_data_class": "public"}}, workloads={})
    requests = [Facts("assistant", "m"), Facts("assistant", "m", claimed=DataClass.CONFIDENTIAL)]
    (group,) = planned(small(), after, requests).groups
    assert group.requests == len(requests) * len(SITUATIONS)
    assert {str(o): n for o, n in group.before.items()} == {
        HOME: 5,
        CLOUD: 2,
        "denied: no_capacity": 1,
    }
    assert {str(o): n for o, n in group.after.items()} == {HOME: 6, "denied: no_capacity": 2}
    assert group.classes_before == {DataClass.INTERNAL: 4, DataClass.CONFIDENTIAL: 4}


def test_a_raised_class_shows_in_the_classes_and_is_the_reason_of_the_move() -> None:
    after = changed(workloads={"assistant": {"data_class": "confidential"}})
    found = planned(small(), after, [Facts("assistant", "m")])
    assert {m.rule for m in found.moves} == {"data_class"}
    assert found.moves[0].data_classes == {DataClass.INTERNAL, DataClass.CONFIDENTIAL}
    assert found.groups[0].classes_after == {DataClass.CONFIDENTIAL: len(SITUATIONS)}
    assert found.reaches == ()


def test_where_no_rule_rejects_the_old_place_the_scores_are_the_reason() -> None:
    always = {"cloud-gpu": {"min_replicas": 1}}
    before = changed(pools=always, workloads={"assistant": {"burst": None}})
    preferring = {"burst": None, "preferred_zones": ["onprem"]}
    after = changed(pools=always, workloads={"assistant": preferring})
    move = the_move(planned(before, after, [Facts("assistant", "m")]), "all ready")
    assert move.rule == "score"
    assert f"{CLOUD} scores" in move.sentence


def test_what_is_no_longer_denied_tells_what_denied_it() -> None:
    before = changed(models={"m": {"variants": variants(max_model_len=1024)}})
    found = planned(before, small(), [Facts("records", "m", max_tokens=4096)])
    move = the_move(found, "at rest")
    assert (str(move.before), move.rule) == ("denied: context_length", "context_length")
    assert move.sentence.startswith("until now: 4096 tokens")
    assert the_move(found, "home down").sentence == (
        "denied: no_capacity, until now denied: context_length"
    )


def variants(**fields: Any) -> list[dict[str, Any]]:
    raw = small().configuration.model_dump(mode="json")["models"][0]["variants"]
    return [v | fields for v in raw]


def test_an_endpoint_that_is_gone_is_named() -> None:
    after = changed(
        models={"m": {"variants": variants(pools=["home-gpu"])}},
        workloads={"assistant": {"burst": None}},
    )
    move = the_move(planned(small(), after, [Facts("assistant", "m")]), "bursting to cloud-gpu")
    assert move.rule == "candidate"
    assert move.sentence == f"'{CLOUD}' is no longer configured for model 'm'"


def test_a_pool_that_moves_to_another_zone_moves_its_requests() -> None:
    after = changed(clusters={"home": {"zone": "cloud"}})
    found = planned(small(), after, [Facts("assistant", "m")])
    assert ("zone", "onprem", "cloud") in {
        (m.rule, m.before.zone, m.after.zone) for m in found.moves
    }


@pytest.mark.parametrize("gone", [True, False])
def test_a_workload_that_comes_or_goes_is_the_reason_itself(gone: bool) -> None:
    sides = (small(), without("records")) if gone else (without("records"), small())
    found = planned(*sides)
    assert {(m.workload, m.rule) for m in found.moves} == {("records", "workload")}


def test_typical_requests_cover_every_workload_label_and_context_of_both_rules() -> None:
    after = changed(models={"m": {"variants": variants(max_model_len=1024)}})
    made = typical_requests(small(), after)
    assert {f.workload for f in made} == {"assistant", "records"}
    assert {f.claimed for f in made} == set(DataClass)
    assert {f.max_tokens for f in made} == {0, 1024, 4096}


def test_a_loosened_rule_tells_what_data_newly_reaches_which_zone() -> None:
    always = {"cloud-gpu": {"min_replicas": 1}}
    loose = {"data_class": "internal", "allowed_zones": ["onprem", "cloud"]}
    before, after = changed(pools=always), changed(pools=always, workloads={"records": loose})
    assert reaches(before, after) == (Reach("records", "cloud", "EU", DataClass.INTERNAL),)
    assert reaches(after, before) == ()


def test_a_zone_that_may_hold_more_is_news_for_who_may_go_there() -> None:
    after = changed(zones={"cloud": {"max_data_class": "restricted"}})
    assert reaches(small(), after) == (Reach("assistant", "cloud", "EU", DataClass.RESTRICTED),)


def test_a_zone_under_another_law_is_another_zone() -> None:
    after = changed(zones={"cloud": {"jurisdiction": "US"}})
    assert reaches(small(), after) == (Reach("assistant", "cloud", "US", DataClass.INTERNAL),)


def test_data_that_newly_reaches_a_zone_is_told_though_no_sampled_request_goes_there() -> None:
    after = changed(zones={"cloud": {"max_data_class": "confidential"}})
    found = planned(small(), after, [Facts("records", "m")])
    assert found.moves == ()
    assert found.reaches == (Reach("assistant", "cloud", "EU", DataClass.CONFIDENTIAL),)


def could_come(catalogue: Catalogue, workload: str, zone: Zone, data_class: DataClass) -> bool:
    """Whether data of the workload that is at least so sensitive had a place in the zone."""
    if workload not in catalogue.workloads:
        return False
    spec = catalogue.workloads[workload]
    return any(
        (candidate.zone.name, candidate.zone.jurisdiction) == (zone.name, zone.jurisdiction)
        for model in spec.models
        for higher in DataClass
        if higher >= max(data_class, spec.data_class)
        for candidate in catalogue.selection(workload, model, higher, True).candidates
    )


@settings(max_examples=300, deadline=None)
@given(catalogues(), questions())
def test_no_request_reaches_a_zone_that_was_closed_to_its_data_without_being_told(
    before: Catalogue, case: tuple[Facts, View]
) -> None:
    facts, view = case
    grant = decide(facts, view).grant
    if grant is None:
        return
    zone, told = grant.candidate.zone, reaches(before, view.catalogue)
    if not could_come(before, facts.workload, zone, grant.data_class):
        (reach,) = (r for r in told if (r.workload, r.zone) == (facts.workload, zone.name))
        assert reach.data_class >= grant.data_class


def test_a_marker_that_is_taken_away_is_told() -> None:
    before = changed(workloads={"assistant": {"markers": ["Project Falcon"]}})
    assert planned(before, small()).unmarked == (("assistant", "Project Falcon"),)
    assert planned(small(), before).unmarked == ()


def test_differences_are_named_by_object_and_field(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = copy(tmp_path / "before")
    after = copy(tmp_path / "after", "workloads.yaml", "ttft_p95_s: 2.0", "ttft_p95_s: 1.0")
    (after / "more.yaml").write_text(
        "zones: [{name: edge, jurisdiction: DE, max_data_class: public}]\n"
    )
    found = differences(load(before), load(after))
    assert [(d.kind, d.place) for d in found] == [
        ("added", "zones.edge"),
        ("changed", "workloads.assistant.slo.ttft_p95_s"),
    ]
    assert found[1] == Difference("changed", "workloads.assistant.slo.ttft_p95_s", 2.0, 1.0)
    assert differences(load(before), load(before)) == []
