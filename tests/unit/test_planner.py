"""From observations to targets: growth while bursting, nothing taken from under a stream."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.planner import Decided, Observation, Plan, plan
from orchestrator.capacity.provision import Provision
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from tests.worlds import quote, small

WORLD = small()
HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
CALM = Observation(
    endpoints={HOME: EndpointState(ready_replicas=1)},
    replicas={HOME: 1},
    quotes={"cloud-gpu": quote(2.0, 100)},
    budget_left_usd={"assistant": 5},
    oldest_snapshot=10,
)


def next_plan(
    observation: Observation,
    state: BurstState,
    held: int = 0,
    published: Mapping[str, int] | None = None,
) -> Plan:
    targets = {HOME: 1, CLOUD: held}
    return plan(WORLD, observation, Decided({"assistant": state}, targets, published or {}), 200)


def bursting(since_s: float = 199) -> BurstState:
    return BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=since_s)


DRAINING = BurstState(phase=BurstPhase.DRAINING, pool="cloud-gpu", since_s=100)


def test_at_home_every_pool_has_its_minimum() -> None:
    assert next_plan(CALM, BurstState()).targets == {HOME: 1, CLOUD: 0}


def test_a_burst_takes_what_home_cannot_hold_and_no_more_than_the_pool_has() -> None:
    for open_requests, replicas in ((5, 1), (8, 1), (9, 2), (400, 2)):
        loaded = replace(
            CALM,
            endpoints={HOME: EndpointState(ready_replicas=1, inflight={"g": open_requests})},
        )
        assert next_plan(loaded, bursting()).targets[CLOUD] == replicas


def test_what_waits_in_gateways_calls_for_a_burst_and_for_replicas() -> None:
    for queued, replicas in ((4, 1), (5, 2)):
        home = EndpointState(ready_replicas=1, inflight={"g": 4}, queued=queued)
        waited_for = replace(CALM, endpoints={HOME: home})
        assert next_plan(waited_for, bursting()).targets[CLOUD] == replicas
    lost = replace(CALM, endpoints={HOME: EndpointState(queued=3)})
    after = next_plan(lost, BurstState(condition_since_s=1))
    assert after.bursts["assistant"].phase is BurstPhase.BURSTING
    assert after.targets[CLOUD] == 1


def test_a_burst_gives_nothing_back_before_it_drains() -> None:
    assert next_plan(CALM, bursting(), held=2).targets[CLOUD] == 2


def test_a_drain_waits_until_every_gateway_was_told() -> None:
    standing = replace(CALM, replicas={HOME: 1, CLOUD: 2})
    for published, target in (({}, 2), ({"assistant": 11}, 2), ({"assistant": 10}, 0)):
        assert next_plan(standing, DRAINING, 2, published).targets[CLOUD] == target


def test_a_drain_that_lasts_says_so_once_and_is_not_forced() -> None:
    limit_s = WORLD.configuration.controller.drain_timeout_s
    held = replace(
        CALM,
        endpoints={CLOUD: EndpointState(ready_replicas=1, inflight={"g": 1})},
        replicas={HOME: 1, CLOUD: 1},
    )
    state = DRAINING.model_copy(update={"reason": "calm"})
    for since_s, reason in (
        (limit_s, "calm"),
        (limit_s + 1, "calm; the drain lasts longer than 600 s"),
        (limit_s + 2, "calm; the drain lasts longer than 600 s"),
    ):
        decided = Decided({"assistant": state}, {CLOUD: 1}, {"assistant": 1})
        after = plan(WORLD, held, decided, 100 + since_s)
        state = after.bursts["assistant"]
        assert (state.phase, state.reason) == (BurstPhase.DRAINING, reason)
        assert after.targets[CLOUD] == 1


def test_a_drain_ends_when_the_replicas_of_the_burst_are_gone() -> None:
    standing = replace(CALM, replicas={HOME: 1, CLOUD: 1})
    told = {"assistant": 10}
    assert next_plan(standing, DRAINING, 1, told).bursts["assistant"].phase is BurstPhase.DRAINING
    assert next_plan(CALM, DRAINING, 0, told).bursts["assistant"].phase is BurstPhase.HOME


@given(
    inflight=st.dictionaries(st.sampled_from(["g1", "g2"]), st.integers(0, 3)),
    running=st.integers(0, 3),
    waiting=st.integers(0, 3),
    held=st.integers(0, 2),
    published=st.none() | st.integers(8, 12),
)
def test_no_replica_is_taken_from_under_a_stream(
    inflight: dict[str, int], running: int, waiting: int, held: int, published: int | None
) -> None:
    state = EndpointState(ready_replicas=held, inflight=inflight, running=running, waiting=waiting)
    observed = replace(
        CALM,
        endpoints={HOME: EndpointState(ready_replicas=1), CLOUD: state},
        replicas={HOME: 1, CLOUD: held},
    )
    told = {} if published is None else {"assistant": published}
    target = next_plan(observed, DRAINING, held, told).targets[CLOUD]
    if sum(inflight.values()) + running + waiting or published is None or published > 10:
        assert target == held
    else:
        assert target == 0


def test_two_workloads_share_a_burst_pool_and_each_leaves_on_its_own() -> None:
    # The one that leaves goes home at once; the one that stays keeps the replicas.
    from orchestrator.config.spec import Configuration
    from orchestrator.policy.catalogue import Catalogue

    raw = WORLD.configuration.model_dump(mode="json")
    raw["workloads"].append({**raw["workloads"][0], "name": "search"})
    shared = Catalogue(Configuration.model_validate(raw), "v2")
    busy = replace(
        CALM,
        endpoints={
            HOME: EndpointState(ready_replicas=1, inflight={"g": 30}),
            CLOUD: EndpointState(ready_replicas=2, inflight={"g": 4}),
        },
        replicas={HOME: 1, CLOUD: 2},
    )
    states = {"assistant": DRAINING, "search": bursting()}
    after = plan(shared, busy, Decided(states, {HOME: 1, CLOUD: 2}, {"assistant": 5}), 200)
    assert after.bursts["assistant"].phase is BurstPhase.HOME
    assert after.bursts["search"].phase is BurstPhase.BURSTING
    assert after.targets[CLOUD] == 2


def test_a_scale_up_that_does_not_come_is_given_up_and_asked_for_again_later() -> None:
    decided = Decided({"assistant": bursting(0)}, {HOME: 1, CLOUD: 2})
    busy_home = {HOME: EndpointState(ready_replicas=1, inflight={"g": 30})}
    observed = replace(CALM, endpoints=busy_home, quotes={"cloud-gpu": quote(2.0, 0, 1e6)})
    limit_s, asked = 3 * 60, {}
    for now_s in range(0, 2 * limit_s + 200, 10):
        planned = plan(WORLD, observed, decided, now_s)
        asked[now_s] = planned.targets[CLOUD]
        decided = Decided(planned.bursts, planned.targets, {}, planned.provisions)
    assert asked[limit_s] == 2
    assert (asked[limit_s + 10], asked[limit_s + 60]) == (0, 0)
    assert asked[limit_s + 70] == 2
    assert planned.provisions[CLOUD].failures == 2
    assert planned.targets[HOME] == 1
    assert HOME not in planned.provisions


def test_what_came_of_a_scale_up_that_is_given_up_is_kept() -> None:
    given_up = {CLOUD: Provision(failures=1, retry_at_s=900, reason="no GPU")}
    endpoints = {
        HOME: EndpointState(ready_replicas=1, inflight={"g": 30}),
        CLOUD: EndpointState(ready_replicas=1),
    }
    decided = Decided({"assistant": bursting()}, {HOME: 1, CLOUD: 2}, {}, given_up)
    planned = plan(WORLD, replace(CALM, endpoints=endpoints), decided, 200)
    assert planned.targets[CLOUD] == 1
    assert "no GPU" in planned.reasons[CLOUD]


def test_an_engine_that_does_not_say_what_it_runs_is_not_taken_for_idle() -> None:
    standing = replace(CALM, replicas={HOME: 1, CLOUD: 2}, unheard=frozenset({CLOUD}))
    assert next_plan(standing, DRAINING, 2, {"assistant": 10}).targets[CLOUD] == 2


def test_streams_that_nobody_remembers_ordering_capacity_for_keep_it() -> None:
    state = EndpointState(ready_replicas=2, running=1)
    observed = replace(CALM, endpoints={CLOUD: state}, standing={CLOUD: 2})
    assert next_plan(observed, BurstState()).targets[CLOUD] == 2


def test_home_that_is_held_is_no_capacity_to_come_back_to() -> None:
    held = replace(CALM, held=frozenset({"home-gpu"}))
    patient = bursting(since_s=0).model_copy(update={"condition_since_s": 1})
    assert next_plan(CALM, patient).bursts["assistant"].phase is BurstPhase.DRAINING
    assert next_plan(held, patient).bursts["assistant"].phase is BurstPhase.BURSTING


def two_on_one_pool() -> Catalogue:
    """Another workload whose burst runs another variant on the same pool."""
    written = WORLD.configuration.model_dump(mode="json", exclude_unset=True)
    other = deepcopy(next(w for w in written["workloads"] if w["name"] == "assistant"))
    model = deepcopy(written["models"][0])
    model["name"], model["variants"][0]["name"] = "other", "other-fp16"
    other |= {"name": "other", "models": ["other"]}
    written["models"].append(model)
    written["workloads"].append(other)
    return Catalogue(Configuration.model_validate(written), "two")


def test_a_drain_goes_on_while_another_burst_has_other_replicas_of_the_pool() -> None:
    standing = replace(CALM, replicas={HOME: 1, CLOUD: 1, "cloud-gpu/other-fp16": 1})
    bursts = {"assistant": DRAINING, "other": bursting()}
    decided = Decided(bursts, {CLOUD: 1, "cloud-gpu/other-fp16": 1}, {})
    after = plan(two_on_one_pool(), standing, decided, 200)
    assert after.bursts["assistant"].phase is BurstPhase.DRAINING
    assert after.targets[CLOUD] == 1
    gone = replace(standing, replicas={HOME: 1, "cloud-gpu/other-fp16": 1})
    told = replace(decided, draining_published={"assistant": 10})
    after = plan(two_on_one_pool(), gone, told, 200)
    assert after.bursts["assistant"].phase is BurstPhase.HOME
    assert after.bursts["other"].phase is BurstPhase.BURSTING
