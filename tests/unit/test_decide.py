"""Which pool takes a request, and what is said of the others."""

from hypothesis import given

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.constraints.momentary import MOMENTARY
from orchestrator.policy.decide import decide
from orchestrator.policy.explain import explain
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import BurstPhase, Hold, Snapshot
from orchestrator.policy.view import View
from tests.worlds import questions, small, snapshot

WORLD = small()
MOMENTARY_CODES = {code for code, _ in MOMENTARY}
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"


def granted(facts: Facts, state: Snapshot, gateway_id: str = "") -> str | None:
    grant = decide(facts, View(WORLD, state, gateway_id)).grant
    return grant and grant.candidate.endpoint


def rejected(facts: Facts, state: Snapshot) -> dict[str, tuple[str | None, str]]:
    verdicts = decide(facts, View(WORLD, state)).verdicts
    return {v.candidate.endpoint: (v.rejected_by, v.detail) for v in verdicts}


def bursting(**kwargs: object) -> Snapshot:
    return snapshot(cloud_ready=1, burst=BurstPhase.BURSTING, **kwargs)  # type: ignore[arg-type]


def at_home(requests: int) -> Facts:
    return Facts("assistant", "m", inflight=WORLD.counts({HOME: requests}))


def test_a_request_stays_at_home_while_home_has_a_free_slot() -> None:
    assert granted(Facts("assistant", "m"), bursting()) == HOME


def test_a_request_goes_to_the_burst_pool_when_it_would_wait_too_long_at_home() -> None:
    grant = decide(at_home(20), View(WORLD, bursting())).grant
    assert grant is not None
    assert grant.candidate.endpoint == CLOUD
    assert grant.quote is not None
    assert grant.quote.usd_per_gpu_hour == 2.0


def test_requests_of_other_gateways_count_as_load_and_ones_own_are_not_counted_twice() -> None:
    state = bursting()
    crowded = state.endpoints[HOME].model_copy(update={"inflight": {"a": 20}})
    state = state.model_copy(update={"endpoints": {**state.endpoints, HOME: crowded}})
    assert granted(Facts("assistant", "m"), state, gateway_id="b") == CLOUD
    assert granted(at_home(0), state, gateway_id="a") == HOME
    assert granted(at_home(20), state, gateway_id="a") == CLOUD


def test_a_restricted_request_names_the_rule_that_rejected_the_cloud() -> None:
    code, detail = rejected(Facts("records", "m"), bursting())[CLOUD]
    assert code == "zone_not_allowed"
    assert "records" in detail


def test_a_pool_that_is_rented_for_bursts_serves_only_those_who_burst_to_it() -> None:
    raw = WORLD.configuration.model_dump(mode="json")
    raw["workloads"][0]["burst"] = None
    stays = Catalogue(Configuration.model_validate(raw), "v2")
    verdicts = decide(Facts("assistant", "m"), View(stays, bursting())).verdicts
    assert {v.candidate.endpoint: v.rejected_by for v in verdicts} == {CLOUD: "rented", HOME: None}


def test_a_header_can_raise_the_class_of_a_request() -> None:
    code, detail = rejected(Facts("assistant", "m", claimed=DataClass.RESTRICTED), bursting())[
        CLOUD
    ]
    assert code == "data_class"
    assert "restricted" in detail


def test_a_header_cannot_lower_the_class_of_a_request() -> None:
    decision = decide(Facts("records", "m", claimed=DataClass.PUBLIC), View(WORLD, snapshot()))
    assert decision.data_class is DataClass.RESTRICTED


def test_above_the_ceiling_the_price_is_the_reason() -> None:
    code, detail = rejected(Facts("assistant", "m"), bursting(usd=3.5))[CLOUD]
    assert code == "price"
    assert "3.50" in detail
    assert "3.00" in detail


def test_with_the_budget_spent_a_workload_stays_at_home() -> None:
    assert rejected(Facts("assistant", "m"), bursting(budget_left_usd=0))[CLOUD][0] == "budget"


def test_with_the_budget_spent_a_workload_pays_for_no_tokens_either() -> None:
    raw = WORLD.configuration.model_dump(mode="json")
    raw["clusters"][1] |= {"kind": "openai", "dashboard_url": None}
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}
    raw["pools"][1] |= {"min_replicas": 1, "max_replicas": 1, "price": {"tokens": prices}}
    raw["workloads"][0]["burst"] = None
    by_token = Catalogue(Configuration.model_validate(raw), "v2")
    for left, verdict in ((5.0, None), (0.0, "budget")):
        state = snapshot(cloud_ready=1, budget_left_usd=left)
        verdicts = decide(Facts("assistant", "m"), View(by_token, state)).verdicts
        assert {v.candidate.endpoint: v.rejected_by for v in verdicts}[CLOUD] == verdict


def test_a_draining_pool_takes_nothing_new() -> None:
    state = snapshot(cloud_ready=1, burst=BurstPhase.DRAINING)
    assert rejected(Facts("assistant", "m"), state)[CLOUD][0] == "burst"


def test_with_a_stale_snapshot_nothing_goes_to_a_burst_pool_whatever_it_may_hold() -> None:
    raw = WORLD.configuration.model_dump(mode="json")
    for zone in raw["zones"]:
        zone["max_data_class"] = "restricted"
    catalogue = Catalogue(Configuration.model_validate(raw), "v1")
    view, load = View(catalogue, bursting(), ""), WORLD.counts({HOME: 20})
    fresh, stale = (
        decide(Facts("assistant", "m", inflight=load, snapshot_age_s=age_s), view)
        for age_s in (120, 121)
    )
    assert fresh.grant is not None
    assert fresh.grant.candidate.endpoint == CLOUD
    refused = {v.candidate.endpoint: v.rejected_by for v in stale.verdicts}
    assert refused[CLOUD] == "burst"


def test_without_a_ready_replica_the_denial_is_a_matter_of_capacity() -> None:
    decision = decide(Facts("records", "m"), View(WORLD, snapshot(home_ready=0)))
    assert decision.denied == "no_capacity"


def test_more_tokens_than_any_context_holds_is_its_own_denial() -> None:
    decision = decide(Facts("records", "m", max_tokens=5000), View(WORLD, snapshot()))
    assert decision.denied == "context_length"


def test_a_model_that_the_workload_may_not_use_is_not_found() -> None:
    assert decide(Facts("records", "gpt-4"), View(WORLD, snapshot())).denied == "model_not_found"


def test_explain_shows_every_candidate() -> None:
    shown = explain(decide(Facts("records", "m"), View(WORLD, bursting())))
    assert shown["decision"]["pool"] == "home-gpu"
    assert [c["feasible"] for c in shown["candidates"]] == [False, True]
    assert shown["data_class"] == "restricted"


def test_a_pool_that_is_drained_or_about_to_be_lost_takes_nothing() -> None:
    for hold, said in ((Hold.DRAINED, "pools resume home-gpu"), (Hold.LEAVING, "about to be lost")):
        state = bursting().model_copy(update={"holds": {"home-gpu": hold}})
        assert granted(Facts("assistant", "m"), state) == CLOUD
        code, detail = rejected(Facts("assistant", "m"), state)[HOME]
        assert code == "held"
        assert said in detail
        assert granted(Facts("records", "m"), state) is None


def test_an_answer_that_has_begun_goes_on_with_its_variant_or_not_at_all() -> None:
    assert granted(Facts("assistant", "m", variant="m-fp16"), bursting()) == HOME
    code, detail = rejected(Facts("assistant", "m", variant="m-int8"), bursting())[HOME]
    assert (code, "m-int8" in detail) == ("variant", True)


def of_others(**inflight: int) -> Snapshot:
    """Home with requests of gateways, and no burst."""
    state = snapshot()
    home = state.endpoints[HOME].model_copy(update={"inflight": inflight})
    return state.model_copy(update={"endpoints": {**state.endpoints, HOME: home}})


def test_an_endpoint_with_all_slots_and_a_short_backlog_taken_is_saturated() -> None:
    assert granted(at_home(4), snapshot()) == HOME
    decision = decide(at_home(5), View(WORLD, snapshot()))
    assert decision.grant is None
    assert decision.denied == "saturated"
    code, detail = rejected(at_home(5), snapshot())[HOME]
    assert code == "saturated"
    assert "5 requests are open there; its 4 slots" in detail


def test_what_is_full_and_would_not_do_anyway_has_the_other_reason() -> None:
    full = WORLD.counts({HOME: 50, CLOUD: 50})
    facts = Facts("assistant", "m", inflight=full)
    assert {e: code for e, (code, _) in rejected(facts, snapshot()).items()} == {
        HOME: "saturated",
        CLOUD: "burst",
    }
    assert rejected(facts, snapshot(home_ready=0))[HOME][0] == "not_ready"
    assert decide(facts, View(WORLD, snapshot(home_ready=0))).denied == "no_capacity"


def test_a_gateway_that_others_leave_no_room_takes_its_part_all_the_same() -> None:
    state = of_others(a=5)
    for own, expected in ((0, HOME), (2, HOME), (3, None)):
        assert granted(at_home(own), state, gateway_id="b") == expected
    assert granted(at_home(0), state) is None


def test_gateways_that_compete_come_to_equal_parts() -> None:
    counts = {"a": 5, "b": 0}
    for _ in range(30):
        state = of_others(**{g: n for g, n in counts.items() if n})
        for gateway in counts:
            counts[gateway] = max(0, counts[gateway] - 1)
            while granted(at_home(counts[gateway]), state, gateway_id=gateway):
                counts[gateway] += 1
    assert counts == {"a": 3, "b": 3}


@given(questions())
def test_the_denial_says_the_same_as_the_rules_that_rejected_each_candidate(
    case: tuple[Facts, View],
) -> None:
    decision = decide(*case)
    codes = {v.rejected_by for v in decision.verdicts}
    if decision.denied == "saturated":
        assert "saturated" in codes
    elif decision.denied == "residency":
        assert not codes & MOMENTARY_CODES
    elif decision.denied == "context_length":
        assert codes & MOMENTARY_CODES == {"context_length"}
    elif decision.denied == "no_capacity":
        assert codes & MOMENTARY_CODES - {"context_length", "saturated"}
        assert "saturated" not in codes
    else:
        assert decision.grant is not None or decision.question is None
