"""Whatever a fleet does: no pool above its maximum, nothing taken from under a stream, and no pool
held up by another."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.planner import Decided, Observation, busy, plan
from orchestrator.capacity.provision import Progress, Provision
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from tests.worlds import quote, small

NOW_S = 1000.0


def _two_clouds() -> Catalogue:
    """The small world with a second, dearer burst pool."""
    raw: dict[str, Any] = small().configuration.model_dump(mode="json")
    raw["pools"].append({**raw["pools"][1], "name": "other-gpu", "max_replicas": 3})
    raw["models"][0]["variants"][0]["pools"].append("other-gpu")
    raw["workloads"][0]["burst"]["pools"].append("other-gpu")
    return Catalogue(Configuration.model_validate(raw), "v1")


WORLD = _two_clouds()
HOME, CLOUD, OTHER = WORLD.candidates
AWAY = ("cloud-gpu", "other-gpu")
QUOTES = {"cloud-gpu": quote(2.0), "other-gpu": quote(2.5)}
times_s = st.sampled_from([NOW_S - 10_000, NOW_S - 200, NOW_S - 1, NOW_S + 100])
endpoint_states = st.builds(
    EndpointState,
    ready_replicas=st.integers(0, 5),
    running=st.integers(0, 2),
    waiting=st.integers(0, 9),
    queued=st.integers(0, 9),
    inflight=st.dictionaries(st.sampled_from("ab"), st.integers(0, 30), max_size=2),
    ttft_p95_s=st.none() | st.sampled_from([0.1, 9.0]),
)
provisions = st.builds(
    Provision,
    lacking_since_s=st.none() | times_s,
    ready=st.integers(0, 3),
    failures=st.integers(0, 9),
    retry_at_s=st.sampled_from([0.0]) | times_s,
)


def by(keys: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), values)


endpoints = (HOME, CLOUD, OTHER)
observations = st.builds(
    Observation,
    endpoints=by(endpoints, endpoint_states),
    replicas=by(endpoints, st.integers(0, 6)),
    quotes=st.just(QUOTES) | by(AWAY, st.builds(quote, st.floats(0.1, 9))),
    budget_left_usd=by(("assistant",), st.sampled_from([-1.0, 5.0])),
    oldest_snapshot=st.integers(0, 9),
    standing=by(endpoints, st.integers(0, 6)),
    progress=by(
        endpoints,
        st.builds(Progress, st.none() | st.just("no GPU"), st.booleans()),
    ),
    unheard=st.frozensets(st.sampled_from(endpoints)),
    held=st.frozensets(st.sampled_from(["home-gpu", *AWAY])),
)
bursts = st.builds(
    BurstState,
    phase=st.sampled_from([BurstPhase.BURSTING, BurstPhase.DRAINING]),
    pool=st.sampled_from(AWAY),
    since_s=times_s,
) | st.builds(BurstState, condition_since_s=st.none() | times_s)
decisions = st.builds(
    Decided,
    bursts=by(("assistant",), bursts),
    targets=st.fixed_dictionaries(
        {},
        optional={e: st.integers(0, c.pool.max_replicas) for e, c in WORLD.candidates.items()},
    ),
    draining_published=by(("assistant",), st.integers(0, 9)),
    provisions=by(endpoints, provisions),
)


@given(observations, decisions)
def test_every_target_lies_between_what_a_pool_must_and_may_have(
    observation: Observation, decided: Decided
) -> None:
    for endpoint, target in plan(WORLD, observation, decided, NOW_S).targets.items():
        pool = WORLD.candidates[endpoint].pool
        assert pool.min_replicas <= target <= pool.max_replicas


@given(observations, decisions)
def test_a_busy_endpoint_keeps_what_it_has(observation: Observation, decided: Decided) -> None:
    for endpoint, target in plan(WORLD, observation, decided, NOW_S).targets.items():
        if busy(observation, endpoint):
            most = WORLD.candidates[endpoint].pool.max_replicas
            assert target >= decided.targets.get(endpoint, 0)
            assert target >= min(most, observation.standing.get(endpoint, 0))


@given(observations, decisions)
def test_a_burst_goes_on_where_something_can_be_had(
    observation: Observation, decided: Decided
) -> None:
    """One that is under way is on no pool that gives nothing, while another one could take it."""
    calm = replace(observation, quotes=QUOTES, budget_left_usd={"assistant": 5}, held=frozenset())
    after = plan(WORLD, calm, decided, NOW_S)
    burst = after.bursts["assistant"]
    if burst.phase is not BurstPhase.BURSTING:
        return

    def gives_nothing(pool: str) -> bool:
        endpoint = WORLD.by_pool[pool][0].endpoint
        provision = after.provisions.get(endpoint)
        if provision is None or not provision.given_up(NOW_S):
            return False
        return calm.endpoints.get(endpoint, EndpointState()).ready_replicas == 0

    assert burst.pool is not None
    if gives_nothing(burst.pool):
        assert all(
            (p := after.provisions.get(WORLD.by_pool[pool][0].endpoint)) and p.given_up(NOW_S)
            for pool in AWAY
        )


@given(observations, decisions, provisions, st.builds(Progress, failed=st.just("no GPU")))
def test_what_becomes_of_one_endpoint_changes_no_other_that_has_no_burst_in_common(
    observation: Observation, decided: Decided, provision: Provision, progress: Progress
) -> None:
    troubled = plan(
        WORLD,
        replace(observation, progress={**observation.progress, OTHER: progress}),
        replace(decided, provisions={**decided.provisions, OTHER: provision}),
        NOW_S,
    )
    fine = plan(WORLD, observation, decided, NOW_S)
    assert troubled.targets[HOME] == fine.targets[HOME]
    # A burst that cannot have the one takes the other: it gets more, never less.
    if fine.bursts["assistant"].pool != OTHER:
        assert troubled.targets[CLOUD] >= fine.targets[CLOUD]
