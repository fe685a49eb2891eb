"""Whatever a fleet does and whatever is forecast: no pool above its maximum, nothing taken from
under a stream, no pool held up by another, and no burst that comes and goes."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.capacity.hold import Excess
from orchestrator.capacity.planner import Decided, Observation, busy, plan
from orchestrator.capacity.provision import Progress, Provision
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from tests.worlds import quote, timed

NOW_S = 1000.0


def _two_clouds() -> Catalogue:
    """The timed world with a second, dearer burst pool."""
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
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
rates = st.sampled_from([0.0, 1e300]) | st.floats(0, 9)
forecasts = st.builds(
    Forecast,
    rps=st.tuples(*[rates] * len(SHARES)).map(lambda rps: tuple(sorted(rps))),
    prompt_tokens=st.floats(0, 4000),
    output_tokens=st.floats(0, 1000),
    variation=st.floats(1, 20),
)
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
    forecasts=by(("assistant", "records"), forecasts),
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
    excess=by(endpoints, st.builds(Excess, since_s=times_s, most=st.integers(0, 3))),
)


@given(observations, decisions)
def test_every_target_lies_between_what_a_pool_must_and_may_have(
    observation: Observation, decided: Decided
) -> None:
    for endpoint, target in plan(WORLD, observation, decided, NOW_S).targets.items():
        pool = WORLD.candidates[endpoint].pool
        assert pool.min_replicas <= target <= pool.max_replicas


@given(observations, decisions)
def test_a_busy_endpoint_keeps_what_it_has_where_nothing_is_forecast(
    observation: Observation, decided: Decided
) -> None:
    blind = replace(observation, forecasts={})
    for endpoint, target in plan(WORLD, blind, decided, NOW_S).targets.items():
        if busy(blind, endpoint):
            most = WORLD.candidates[endpoint].pool.max_replicas
            assert target >= decided.targets.get(endpoint, 0)
            assert target >= min(most, blind.standing.get(endpoint, 0))


@given(observations, decisions)
def test_a_busy_endpoint_gives_back_only_what_was_not_needed_for_a_while_and_never_the_last(
    observation: Observation, decided: Decided
) -> None:
    planned = plan(WORLD, observation, decided, NOW_S)
    for endpoint, target in planned.targets.items():
        held = decided.targets.get(endpoint, 0)
        if not busy(observation, endpoint) or target >= held:
            continue
        assert target >= 1
        excess = decided.excess.get(endpoint)
        provision = planned.provisions.get(endpoint)
        if provision is not None and provision.given_up(NOW_S):
            assert target >= min(held, observation.endpoints[endpoint].ready_replicas)
        else:
            assert excess is not None
            assert NOW_S - excess.since_s >= WORLD.candidates[endpoint].pool.provision_s
            assert target >= min(excess.most, held)


@given(observations, decisions)
def test_the_same_is_planned_again(observation: Observation, decided: Decided) -> None:
    assert plan(WORLD, observation, decided, NOW_S) == plan(WORLD, observation, decided, NOW_S)


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


@dataclass
class Fleet:
    """Where what is ordered comes a while after, or never, and streams come and go."""

    decided: Decided = field(default_factory=Decided)
    ready: dict[str, int] = field(default_factory=lambda: {HOME: 1})
    phases: list[tuple[float, BurstPhase]] = field(default_factory=list)

    def tick(self, now_s: float, moment: "Moment") -> None:
        states = {
            endpoint: EndpointState(
                ready_replicas=self.ready.get(endpoint, 0),
                waiting=moment.waiting if endpoint == HOME else 0,
                inflight={"g": moment.inflight.get(endpoint, 0)},
            )
            for endpoint in endpoints
        }
        observed = Observation(
            endpoints=states,
            replicas=dict(self.ready),
            quotes={pool: quote(usd, now_s) for pool, usd in moment.usd.items()},
            budget_left_usd={"assistant": 5},
            oldest_snapshot=10**6,
            standing=dict(self.ready),
            forecasts=moment.forecasts,
        )
        planned = plan(WORLD, observed, self.decided, now_s)
        told = {w: 1 for w, s in planned.bursts.items() if s.phase is BurstPhase.DRAINING}
        self.decided = Decided(
            planned.bursts, planned.targets, told, planned.provisions, excess=planned.excess
        )
        for endpoint, target in planned.targets.items():
            if moment.comes or target < self.ready.get(endpoint, 0):
                self.ready[endpoint] = target
        phase = planned.bursts["assistant"].phase
        if not self.phases or self.phases[-1][1] is not phase:
            self.phases.append((now_s, phase))


@dataclass(frozen=True)
class Moment:
    passed_s: float
    forecasts: dict[str, Forecast]
    waiting: int
    inflight: dict[str, int]
    usd: dict[str, float]
    comes: bool


moments = st.builds(
    Moment,
    passed_s=st.sampled_from([1.0, 3.0, 10.0, 40.0]),
    forecasts=by(("assistant", "records"), forecasts),
    waiting=st.sampled_from([0, 0, 50]),
    inflight=by(endpoints, st.sampled_from([0, 0, 30])),
    usd=st.fixed_dictionaries({pool: st.sampled_from([1.0, 2.0]) for pool in AWAY}),
    comes=st.booleans(),
)


@given(st.lists(moments, max_size=40))
def test_a_burst_neither_ends_nor_begins_again_sooner_than_the_rules_say(
    ticks: list[Moment],
) -> None:
    """However the load and what is forecast of it jump, at prices under the ceiling."""
    fleet, now_s = Fleet(), NOW_S
    for moment in ticks:
        now_s += moment.passed_s
        fleet.tick(now_s, moment)
    burst = WORLD.workloads["assistant"].burst
    assert burst is not None
    for (since_s, phase), (until_s, following) in pairwise(fleet.phases):
        lasted_s = until_s - since_s
        if phase is BurstPhase.BURSTING:
            assert following is BurstPhase.DRAINING
            assert lasted_s >= burst.min_dwell_s
        elif phase is BurstPhase.DRAINING:
            assert following is BurstPhase.HOME
        elif since_s > fleet.phases[0][0]:
            assert following is BurstPhase.BURSTING
            assert lasted_s >= burst.cooldown_s
