"""Bursts and targets by what is forecast: ahead of the load, down as well as up, never to nothing
under a stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.capacity.forecast import Forecast
from orchestrator.capacity.hold import Excess
from orchestrator.capacity.planner import Decided, Observation, Plan, plan
from orchestrator.capacity.provision import Provision
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState
from tests.worlds import at_rate, quote, roomy, small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
WORLD = roomy()
BURST = WORLD.workloads["assistant"].burst
assert BURST is not None
PROVISION_S = WORLD.pools["cloud-gpu"].provision_s
TICK_S = 10.0
CALM = Observation(
    endpoints={HOME: EndpointState(ready_replicas=2)},
    replicas={HOME: 2},
    quotes={"cloud-gpu": quote(2.0, 0, 1e6), "home-gpu": quote(0.5, 0, 1e6)},
    budget_left_usd={"assistant": 5},
    oldest_snapshot=1000,
)


def forecasts(assistant: float, records: float = 0.0) -> dict[str, Forecast]:
    return {
        "assistant": at_rate(assistant, 400, 100),
        "records": at_rate(records, 400, 100),
    }


FITS, FULL, FLOOD = 0.5, 5.0, 12.0
"""Requests a second that home carries, and that it does not."""


@dataclass
class Controlled:
    """A planner that remembers what it decided, over a cluster where all that is ordered comes at
    once and what is given back goes at once, unless a stream is open there."""

    world: Catalogue = WORLD
    decided: Decided = field(default_factory=Decided)
    now_s: float = 1000.0
    inflight: dict[str, int] = field(default_factory=dict)
    serving: dict[str, int] = field(default_factory=lambda: {HOME: 2})

    def tick(self, expected: Mapping[str, Forecast], **seen: Any) -> Plan:
        self.now_s += TICK_S
        endpoints = {
            endpoint: EndpointState(
                ready_replicas=replicas, inflight={"g": self.inflight.get(endpoint, 0)}
            )
            for endpoint, replicas in self.serving.items()
        }
        observed = replace(
            CALM,
            endpoints=endpoints,
            replicas=dict(self.serving),
            standing=dict(self.serving),
            forecasts=expected,
            **seen,
        )
        planned = plan(self.world, observed, self.decided, self.now_s)
        told = {w: 1 for w, s in planned.bursts.items() if s.phase is BurstPhase.DRAINING}
        self.decided = Decided(
            planned.bursts, planned.targets, told, planned.provisions, excess=planned.excess
        )
        self.serving = {e: n for e, n in planned.targets.items() if n}
        return planned

    def ticks(self, rps: float, duration_s: float, records: float = 0.0) -> list[Plan]:
        return [self.tick(forecasts(rps, records)) for _ in range(round(duration_s / TICK_S))]

    @property
    def phase(self) -> BurstPhase:
        return self.decided.bursts["assistant"].phase


def away(plans: list[Plan]) -> list[int]:
    return [planned.targets[CLOUD] for planned in plans]


def test_a_burst_begins_ahead_of_the_load_that_is_forecast() -> None:
    """Nothing waits, and everything is on time yet."""
    fleet = Controlled()
    first, *_, last = fleet.ticks(FULL, BURST.sustained_s + 2 * TICK_S)
    assert first.bursts["assistant"].phase is BurstPhase.HOME
    assert last.bursts["assistant"].phase is BurstPhase.BURSTING
    assert last.bursts["assistant"].reason == "the load that is forecast needs 2 more than home has"
    assert last.targets[CLOUD] == 2
    assert last.reasons[CLOUD] == f"assistant bursts: {last.bursts['assistant'].reason}"


def test_no_burst_begins_while_home_carries_what_is_forecast() -> None:
    fleet = Controlled()
    assert set(away(fleet.ticks(FITS, 600))) == {0}
    assert fleet.phase is BurstPhase.HOME


def test_what_those_bring_who_may_not_leave_drives_others_away() -> None:
    fleet = Controlled()
    fleet.ticks(FITS, 100, records=4)
    assert fleet.phase is BurstPhase.BURSTING


def test_a_burst_grows_at_once_when_more_is_forecast() -> None:
    fleet = Controlled()
    fleet.ticks(FULL, 100)
    (grown,) = away(fleet.ticks(FLOOD, TICK_S))
    assert grown > 2


def test_a_burst_shrinks_under_load_when_less_is_forecast_for_as_long_as_provisioning_takes() -> (
    None
):
    fleet = Controlled()
    (*_, most) = away(fleet.ticks(FLOOD, 100))
    fleet.inflight = {CLOUD: 5}
    targets = away(fleet.ticks(FULL, 2 * PROVISION_S))
    kept = round(PROVISION_S / TICK_S)
    assert set(targets[:kept]) == {most}
    assert set(targets[kept:]) == {2}
    assert fleet.phase is BurstPhase.BURSTING


def test_what_is_needed_again_within_the_time_is_never_given_back() -> None:
    fleet = Controlled()
    (*_, most) = away(fleet.ticks(FLOOD, 100))
    for _ in range(5):
        assert set(away(fleet.ticks(FULL, PROVISION_S - TICK_S))) == {most}
        assert set(away(fleet.ticks(FLOOD, TICK_S))) == {most}


def test_an_excess_is_remembered_from_tick_to_tick() -> None:
    fleet = Controlled()
    (*_, most) = away(fleet.ticks(FLOOD, 100))
    (planned,) = fleet.ticks(FULL, TICK_S)
    assert planned.excess == {CLOUD: Excess(since_s=fleet.now_s, most=2)}
    assert planned.targets[CLOUD] == most


def test_a_burst_ends_when_the_load_fits_and_drains_before_it_gives_back_the_last() -> None:
    fleet = Controlled()
    fleet.ticks(FULL, 100)
    fleet.inflight = {CLOUD: 3}
    fleet.ticks(FITS, 300)
    assert fleet.phase is BurstPhase.DRAINING
    assert fleet.decided.targets[CLOUD] >= 1, "a stream is open there"
    fleet.inflight = {}
    fleet.ticks(FITS, 2 * TICK_S)
    assert fleet.phase is BurstPhase.HOME
    assert fleet.decided.targets[CLOUD] == 0


def test_under_a_stream_a_burst_never_shrinks_to_nothing() -> None:
    fleet = Controlled()
    fleet.ticks(FLOOD, 100)
    fleet.inflight = {CLOUD: 1}
    assert min(away(fleet.ticks(0, 3600))) >= 1


def test_between_the_load_that_starts_a_burst_and_that_which_ends_one_there_is_a_gap() -> None:
    begins = next(rps / 100 for rps in range(100, 400) if bursts_at(rps / 100))
    fleet = Controlled()
    fleet.ticks(FULL, 100)
    assert set(away(fleet.ticks(0.97 * begins, 600))[-10:]) == {1}
    assert fleet.phase is BurstPhase.BURSTING
    fleet.ticks(0.5 * begins, 600)
    assert fleet.phase is BurstPhase.HOME


def bursts_at(rps: float) -> bool:
    fleet = Controlled()
    fleet.ticks(rps, 3 * TICK_S)
    return fleet.phase is BurstPhase.BURSTING


def test_a_burst_goes_on_while_something_waits_whatever_is_forecast() -> None:
    waits = {HOME: EndpointState(ready_replicas=2, waiting=100)}
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=1, condition_since_s=1)
    for endpoints, phase in ((waits, BurstPhase.BURSTING), (CALM.endpoints, BurstPhase.DRAINING)):
        observed = replace(CALM, endpoints=endpoints, forecasts=forecasts(0.1))
        after = plan(WORLD, observed, Decided({"assistant": state}, {CLOUD: 1}), 1000)
        assert after.bursts["assistant"].phase is phase


def test_home_grows_and_shrinks_with_what_is_forecast() -> None:
    fleet = Controlled(roomy(home=6))
    assert {p.targets[HOME] for p in fleet.ticks(0, 100)} == {1}
    (grown,) = fleet.ticks(0, TICK_S, records=6)
    assert grown.targets[HOME] > 3
    assert grown.reasons[HOME] == "the load that is forecast"
    fleet.inflight = {HOME: 2}
    shrunk = fleet.ticks(0.1, 2 * PROVISION_S)
    assert shrunk[0].targets[HOME] == grown.targets[HOME]
    assert shrunk[-1].targets[HOME] == 1


def test_without_forecasts_targets_go_by_what_is_open_and_waits() -> None:
    """The same as in a world whose speeds nobody knows."""
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=199)
    for inflight in (5, 8, 9, 400):
        busy = {HOME: EndpointState(ready_replicas=1, inflight={"g": inflight})}
        observed = replace(CALM, endpoints=busy)
        decided = Decided({"assistant": state}, {HOME: 1})
        known, unknown = (
            plan(world, observed, decided, 200).targets for world in (roomy(cloud=2), small())
        )
        assert known[CLOUD] == unknown[CLOUD]


def test_when_forecasts_fail_a_burst_keeps_what_it_has() -> None:
    fleet = Controlled()
    (*_, most) = away(fleet.ticks(FLOOD, 100))
    fleet.inflight = {HOME: 8, CLOUD: 8}
    assert {fleet.tick({}).targets[CLOUD] for _ in range(30)} == {most}


def test_a_pool_that_is_given_up_gets_no_more_than_has_come() -> None:
    given_up = {CLOUD: Provision(failures=1, retry_at_s=2000, reason="no GPU")}
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=999)
    decided = Decided({"assistant": state}, {HOME: 2, CLOUD: 5}, {}, given_up)
    for come, open_there, target in ((1, 0, 1), (1, 9, 1), (0, 0, 0), (0, 9, 5)):
        endpoints = {
            HOME: EndpointState(ready_replicas=2),
            CLOUD: EndpointState(ready_replicas=come, inflight={"g": open_there}),
        }
        observed = replace(CALM, endpoints=endpoints, forecasts=forecasts(FLOOD))
        # Where nothing is ready and streams are open all the same, nobody knows what runs there.
        assert plan(WORLD, observed, decided, 1000).targets[CLOUD] == target


def two_clouds(**slo: float) -> Catalogue:
    raw = roomy(assistant={"slo": {"ttft_p95_s": 2, **slo}}).configuration.model_dump(mode="json")
    raw["pools"].append({**raw["pools"][1], "name": "other-gpu"})
    raw["models"][0]["variants"][0]["pools"].append("other-gpu")
    raw["workloads"][0]["burst"]["pools"].append("other-gpu")
    raw["workloads"][0]["price_ceiling"] = {}
    return Catalogue(Configuration.model_validate(raw), "v1")


def test_a_burst_begins_where_any_pool_can_take_what_is_forecast() -> None:
    quotes = {**CALM.quotes, "other-gpu": quote(1.0, 0, 1e6)}
    for pool, other in (("cloud-gpu", "other-gpu"), ("other-gpu", "cloud-gpu")):
        fleet = Controlled(two_clouds())
        for _ in range(5):
            fleet.tick(forecasts(FULL), held=frozenset({pool}), quotes=quotes)
        assert fleet.decided.bursts["assistant"].pool == other


def test_a_burst_begins_where_any_pool_is_worth_its_price() -> None:
    dear = {"cloud-gpu": quote(1e6, 0, 1e6), "other-gpu": quote(1.0, 0, 1e6)}
    fleet = Controlled(two_clouds(miss_usd=0.01))
    for _ in range(5):
        fleet.tick(forecasts(FULL), quotes=dear)
    assert fleet.decided.bursts["assistant"].pool == "other-gpu"


def test_several_that_burst_to_one_endpoint_get_it_for_their_load_together() -> None:
    world = roomy(more=[{"name": "search"}])
    state = BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu", since_s=199)
    expected = forecasts(FULL) | {"search": at_rate(FULL, 400, 100)}
    observed = replace(CALM, forecasts=expected)
    both = plan(world, observed, Decided({"assistant": state, "search": state}), 200)
    one = plan(
        WORLD, replace(CALM, forecasts=forecasts(2 * FULL)), Decided({"assistant": state}), 200
    )
    assert both.targets[CLOUD] == one.targets[CLOUD] > 2
