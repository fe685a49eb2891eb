"""How long a request that finds everything full would wait, and when it may come again."""

from orchestrator.gateway.expected_wait import expected_wait, retry_after_s
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import BurstPhase, EndpointState
from orchestrator.policy.view import View
from tests.worlds import small, snapshot

WORLD = small()
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"


def denied(
    own: int = 5, others: int = 0, slot_s: float | None = 8, home_ready: int = 1
) -> Decision:
    """Home has four slots, of which one becomes free every `slot_s` / 4."""
    state = snapshot(home_ready=home_ready)
    home = EndpointState(
        ready_replicas=home_ready, slot_s=slot_s, inflight={"other": others} if others else {}
    )
    state = state.model_copy(update={"endpoints": {**state.endpoints, HOME: home}})
    facts = Facts("records", "m", inflight=WORLD.counts({HOME: own}))
    return decide(facts, View(WORLD, state, "me"))


def test_the_backlog_and_those_ahead_come_first_one_by_one_as_slots_become_free() -> None:
    assert expected_wait(denied(), ahead=0).first_token_s == 2 * 2
    assert expected_wait(denied(), ahead=10).first_token_s == 12 * 2


def test_a_gateway_gets_as_many_of_the_slots_as_it_has_of_the_requests() -> None:
    assert expected_wait(denied(own=5, others=5), ahead=0).first_token_s == 4 * 4


def test_what_was_not_measured_is_not_taken_for_known() -> None:
    assert expected_wait(denied(), 0).is_measured
    assert not expected_wait(denied(slot_s=None), 0).is_measured


def test_endpoints_that_would_both_do_work_together() -> None:
    state = snapshot(cloud_ready=1, burst=BurstPhase.BURSTING)
    full = EndpointState(ready_replicas=1, slot_s=8)
    state = state.model_copy(update={"endpoints": {HOME: full, CLOUD: full}})
    facts = Facts("assistant", "m", inflight=WORLD.counts({HOME: 5, CLOUD: 5}))
    both = decide(facts, View(WORLD, state, "me"))
    assert expected_wait(both, ahead=0).first_token_s == 3 * 1


def test_another_try_is_worth_it_when_the_queue_is_short_enough() -> None:
    assert retry_after_s(denied(), ahead=10, deadline_s=20) == 4
    assert retry_after_s(denied(), ahead=0, deadline_s=20) == 1


def test_another_try_is_worth_it_when_a_replica_may_be_there() -> None:
    assert retry_after_s(denied(home_ready=0), ahead=10, deadline_s=20) == 60
