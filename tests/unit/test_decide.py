"""Which pool takes a request, and what is said of the others."""

from orchestrator.config.data_class import DataClass
from orchestrator.policy.decide import decide
from orchestrator.policy.explain import explain
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import BurstPhase, Snapshot
from tests.worlds import small, snapshot

WORLD = small()
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"


def rejected(facts: Facts, state: Snapshot) -> dict[str, tuple[str | None, str]]:
    verdicts = decide(facts, WORLD, state).verdicts
    return {v.candidate.endpoint: (v.rejected_by, v.detail) for v in verdicts}


def bursting(**kwargs: object) -> Snapshot:
    return snapshot(cloud_ready=1, burst=BurstPhase.BURSTING, **kwargs)  # type: ignore[arg-type]


def test_a_request_stays_at_home_while_home_has_a_free_slot() -> None:
    grant = decide(Facts("assistant", "m"), WORLD, bursting()).grant
    assert grant is not None
    assert grant.candidate.endpoint == HOME


def test_a_request_goes_to_the_burst_pool_when_it_would_wait_too_long_at_home() -> None:
    grant = decide(Facts("assistant", "m", inflight={HOME: 20}), WORLD, bursting()).grant
    assert grant is not None
    assert grant.candidate.endpoint == CLOUD
    assert grant.quote is not None
    assert grant.quote.usd_per_gpu_hour == 2.0


def test_requests_of_other_gateways_count_as_load_and_ones_own_are_not_counted_twice() -> None:
    state = bursting()
    crowded = state.endpoints[HOME].model_copy(update={"inflight": {"a": 10, "b": 10}})
    state = state.model_copy(update={"endpoints": {**state.endpoints, HOME: crowded}})
    seen_by_c = decide(Facts("assistant", "m", gateway_id="c"), WORLD, state).grant
    seen_by_a = decide(
        Facts("assistant", "m", gateway_id="a", inflight={HOME: 0}),
        WORLD,
        state.model_copy(
            update={
                "endpoints": {
                    **state.endpoints,
                    HOME: crowded.model_copy(update={"inflight": {"a": 20}}),
                }
            }
        ),
    ).grant
    assert seen_by_c is not None
    assert seen_by_c.candidate.endpoint == CLOUD
    assert seen_by_a is not None
    assert seen_by_a.candidate.endpoint == HOME


def test_a_restricted_request_names_the_rule_that_rejected_the_cloud() -> None:
    code, detail = rejected(Facts("records", "m"), bursting())[CLOUD]
    assert code == "zone_not_allowed"
    assert "records" in detail


def test_a_header_can_raise_the_class_of_a_request() -> None:
    code, detail = rejected(Facts("assistant", "m", data_class=DataClass.RESTRICTED), bursting())[
        CLOUD
    ]
    assert code == "data_class"
    assert "restricted" in detail


def test_a_header_cannot_lower_the_class_of_a_request() -> None:
    decision = decide(Facts("records", "m", data_class=DataClass.PUBLIC), WORLD, snapshot())
    assert decision.data_class is DataClass.RESTRICTED


def test_above_the_ceiling_the_price_is_the_reason() -> None:
    code, detail = rejected(Facts("assistant", "m"), bursting(usd=3.5))[CLOUD]
    assert code == "price"
    assert "3.50" in detail
    assert "3.00" in detail


def test_with_the_budget_spent_a_workload_stays_at_home() -> None:
    assert rejected(Facts("assistant", "m"), bursting(budget_left_usd=0))[CLOUD][0] == "budget"


def test_a_draining_pool_takes_nothing_new() -> None:
    state = snapshot(cloud_ready=1, burst=BurstPhase.DRAINING)
    assert rejected(Facts("assistant", "m"), state)[CLOUD][0] == "burst"


def test_without_a_ready_replica_the_denial_is_a_matter_of_capacity() -> None:
    decision = decide(Facts("records", "m"), WORLD, snapshot(home_ready=0))
    assert decision.denied == "no_capacity"


def test_more_tokens_than_any_context_holds_is_its_own_denial() -> None:
    decision = decide(Facts("records", "m", total_tokens=5000), WORLD, snapshot())
    assert decision.denied == "context_length"


def test_a_model_that_the_workload_may_not_use_is_not_found() -> None:
    assert decide(Facts("records", "gpt-4"), WORLD, snapshot()).denied == "model_not_found"


def test_explain_shows_every_candidate() -> None:
    shown = explain(decide(Facts("records", "m"), WORLD, bursting()))
    assert shown["decision"]["pool"] == "home-gpu"
    assert [c["feasible"] for c in shown["candidates"]] == [True, False]
    assert shown["data_class"] == "restricted"
