"""How many replicas a forecast takes: who has home first, and what of the rest is rented."""

from collections.abc import Collection, Mapping
from math import ceil
from typing import Any

import pytest

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.capacity.sizing import CLEAR_S, Sizing
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState
from tests.worlds import at_rate, quote, roomy, small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
WORLD = roomy()
"""A replica of it carries 1.7 requests a second of 400 and 100 tokens when it is never idle."""
REPLICA_RPS = 1 / (400 / 5000 + 100 / 200)


def sizing(
    rps: Mapping[str, float | Forecast],
    world: Catalogue = WORLD,
    *,
    usd: float = 2.0,
    endpoints: Mapping[str, EndpointState] | None = None,
    limits: Mapping[str, int] | None = None,
    bursting: Collection[str] = (),
) -> Sizing:
    forecasts = {
        name: at_rate(each, 400, 100) if isinstance(each, float | int) else each
        for name, each in rps.items()
    }
    quotes = {"home-gpu": quote(0.5), "cloud-gpu": quote(usd)}
    return Sizing(world, forecasts, endpoints or {}, quotes, limits or {}, bursting)


def rented(
    rps: Mapping[str, float | Forecast],
    world: Catalogue = WORLD,
    workloads: Collection[str] = ("assistant",),
    **options: Any,
) -> int:
    found = sizing(rps, world, **options).rented_replicas(list(workloads), world.candidates[CLOUD])
    assert found is not None
    return found


def is_unknown(rps: Mapping[str, float], world: Catalogue = WORLD) -> bool:
    found = sizing(rps, world).rented_replicas(["assistant"], world.candidates[CLOUD])
    return found is None


def misses_cost(usd: float) -> Catalogue:
    return roomy(assistant={"slo": {"ttft_p95_s": 2, "miss_usd": usd}})


def test_home_has_what_its_load_takes() -> None:
    world = roomy(home=10)
    for rps, least in ((0, 0), (0.1, 1), (2, 2), (8, 5)):
        replicas = sizing({"assistant": 0, "records": rps}, world).home_replicas()[HOME]
        assert least == ceil(rps / REPLICA_RPS)
        assert least <= replicas <= least + 2


def test_nothing_is_rented_while_home_carries_the_load() -> None:
    assert rented({"assistant": 0.5, "records": 0.5}) == 0


def test_what_overflows_is_rented() -> None:
    for rps in (5, 10, 20):
        replicas = rented({"assistant": rps, "records": 0})
        least = ceil(rps / REPLICA_RPS) - 2
        assert least <= replicas <= least + 2, "beside the two at home"


def test_workloads_that_may_not_leave_have_the_first_claim_on_home() -> None:
    alone = rented({"assistant": 2.5, "records": 0})
    beside = rented({"assistant": 2.5, "records": 2.5})
    assert beside > alone
    all_away = rented({"assistant": 2.5, "records": 0}, limits={HOME: 0})
    crowded = rented({"assistant": 2.5, "records": 100})
    assert crowded == all_away, "nothing of home is left to others"


def test_who_may_not_leave_crowds_home_also_where_its_objective_cannot_be_met() -> None:
    hopeless = roomy(records={"slo": {"ttft_p95_s": 0.01}})
    load = {"assistant": 1, "records": 3}
    assert rented(load, hopeless) == rented(load)


def test_of_those_who_may_leave_the_higher_priority_has_home_first() -> None:
    load = {"assistant": 1.5, "search": 1.5, "records": 0}
    for first, second in (("assistant", "search"), ("search", "assistant")):
        priority = {first: 9, second: 1}
        world = roomy(
            assistant={"priority": priority["assistant"]},
            more=[{"name": "search", "priority": priority["search"]}],
        )
        assert rented(load, world, [first]) == 0
        assert rented(load, world, [second]) == 1


def test_workloads_on_one_rented_endpoint_are_reckoned_together() -> None:
    world = roomy(more=[{"name": "search"}])
    load = {"assistant": 4, "search": 4, "records": 0}
    both = rented(load, world, ["assistant", "search"])
    one, other = (rented(load, world, [name]) for name in ("assistant", "search"))
    assert max(one, other) < both <= one + other
    as_one = rented({"assistant": 8, "records": 0})
    assert both == as_one, "it is as if they were one"


def test_the_strictest_objective_of_those_together_counts() -> None:
    loose = roomy(more=[{"name": "search"}])
    strict = roomy(more=[{"name": "search", "slo": {"ttft_p95_s": 0.12}}])
    load = {"assistant": 4, "search": 4, "records": 0}
    names = ["assistant", "search"]
    assert rented(load, strict, names) > rented(load, loose, names)


def test_rare_peaks_are_not_paid_for() -> None:
    def peaks(of_time: int) -> int:
        """Of the last shares of the time."""
        rps = [1.0] * (len(SHARES) - of_time) + [2.2] * of_time
        return rented({"assistant": Forecast(tuple(rps), 400, 100, 1), "records": 0})

    assert SHARES[-1] < 0.01
    assert peaks(0) == peaks(1) == 0
    assert peaks(len(SHARES) - 1) == peaks(len(SHARES)) == 1


def test_what_waits_is_worked_off_beside_what_arrives() -> None:
    load = {"assistant": 2, "records": 0}
    piled_up = {
        HOME: EndpointState(ready_replicas=2, waiting=int(2 * CLEAR_S), queued=int(2 * CLEAR_S))
    }
    assert rented(load, endpoints=piled_up) == rented({"assistant": 6, "records": 0})
    away = {CLOUD: EndpointState(ready_replicas=1, waiting=int(4 * CLEAR_S))}
    assert rented(load, endpoints=away) == rented({"assistant": 6, "records": 0})


def test_what_waits_at_home_is_counted_once() -> None:
    world = roomy(more=[{"name": "search"}])
    load = {"assistant": 2, "search": 2, "records": 0}
    piled_up = {HOME: EndpointState(ready_replicas=2, waiting=int(4 * CLEAR_S))}
    both = rented(load, world, ["assistant", "search"], endpoints=piled_up)
    assert both == rented({"assistant": 8, "records": 0})


def test_without_a_forecast_nothing_is_known() -> None:
    assert is_unknown({"records": 1})
    assert is_unknown({})


def test_an_endpoint_that_also_serves_somebody_of_whom_nothing_is_known_is_left_alone() -> None:
    assert sizing({"assistant": 1}).home_replicas() == {}
    assert sizing({"records": 1}).home_replicas() == {}
    assert set(sizing({"assistant": 1, "records": 1}).home_replicas()) == {HOME}
    assert not is_unknown({"assistant": 9}), "what is rented for it is its own"


def test_without_performance_nothing_is_known() -> None:
    load = {"assistant": 9, "records": 9}
    assert sizing(load, small()).home_replicas() == {}
    assert is_unknown(load, small())


def test_without_performance_away_only_home_is_known() -> None:
    raw: dict[str, Any] = WORLD.configuration.model_dump(mode="json")
    raw["pools"][1]["accelerator"] = "H100"
    world = Catalogue(Configuration.model_validate(raw), "v1")
    load = {"assistant": 9, "records": 0}
    assert is_unknown(load, world)
    assert sizing(load, world).home_replicas() == {HOME: 2}


def test_no_more_than_an_endpoint_can_have_is_asked_for() -> None:
    flood = {"assistant": 1000, "records": 0}
    assert rented(flood) == 20
    assert rented(flood, limits={CLOUD: 3}) == 3
    assert rented(flood, limits={CLOUD: 0}) == 0
    assert sizing(flood, limits={HOME: 1}).home_replicas() == {HOME: 1}


def test_home_that_can_have_less_leaves_more_to_rent() -> None:
    load = {"assistant": 3, "records": 0}
    assert rented(load) < rented(load, limits={HOME: 0})


def test_a_burst_that_is_under_way_ends_at_a_lower_load_than_it_began() -> None:
    """Between the two it keeps one replica."""
    loads = [{"assistant": rps / 100, "records": 0} for rps in range(50, 300)]
    begins = [bool(rented(load)) for load in loads].index(True)
    goes_on = [bool(rented(load, bursting=["assistant"])) for load in loads].index(True)
    assert 0.4 < loads[goes_on]["assistant"] / loads[begins]["assistant"] < 0.9
    assert rented(loads[begins - 1], bursting=["assistant"]) == 1


def test_more_is_rented_where_a_miss_is_dear_and_nothing_where_it_is_cheap() -> None:
    load = {"assistant": 10, "records": 0}
    cheap, fair, dear = (rented(load, misses_cost(usd)) for usd in (1e-5, 1e-2, 100))
    assert cheap == 0
    assert 0 < fair < dear


def test_fewer_are_rented_for_more_money() -> None:
    load = {"assistant": 10, "records": 0}
    found = [rented(load, misses_cost(0.001), usd=usd) for usd in (0.01, 2, 100)]
    assert found == sorted(found, reverse=True)
    assert found[0] != found[-1] == 0


def test_an_overload_is_no_reason_to_rent_nothing() -> None:
    """However many are late whatever is rented, the others are worth it."""
    world = roomy(cloud=2, assistant={"slo": {"ttft_p95_s": 2, "miss_usd": 0.01}})
    for rps in (6, 10, 100, 1e6):
        assert rented({"assistant": rps, "records": 0}, world) == 2


def test_without_a_price_the_objective_counts_and_not_the_miss() -> None:
    load = {"assistant": 10, "records": 0}
    world = misses_cost(1e-5)
    forecasts = {name: at_rate(rps, 400, 100) for name, rps in load.items()}
    unpriced = Sizing(world, forecasts, {}, {}, {}, ())
    assert unpriced.rented_replicas(["assistant"], world.candidates[CLOUD]) == rented(load)


def test_of_those_together_one_without_a_price_of_misses_is_planned_for_in_full() -> None:
    slo = {"ttft_p95_s": 2, "itl_p95_s": 0.05}
    cheap = slo | {"miss_usd": 1e-5}
    load = {"assistant": 4, "search": 4, "records": 0}
    names = ["assistant", "search"]
    one, none, both = (
        rented(load, roomy(assistant={"slo": own}, more=[{"name": "search", "slo": other}]), names)
        for own, other in ((cheap, slo), (slo, slo), (cheap, cheap))
    )
    assert (one, both) == (none, 0)


@pytest.mark.parametrize("fast", [1, 4])
def test_replicas_at_home_count_by_what_they_do(fast: int) -> None:
    """Two fast ones at home are worth as many slow ones away."""
    raw: dict[str, Any] = WORLD.configuration.model_dump(mode="json")
    raw["pools"][0]["accelerator"] = "H100"
    performance = raw["models"][0]["variants"][0]["performance"]
    performance.append(
        performance[0]
        | {
            "accelerator": "H100",
            "prefill_tokens_per_s": fast * 5000,
            "decode_tokens_per_s": fast * 200,
            "itl_s": 0.01 / fast,
        }
    )
    world = Catalogue(Configuration.model_validate(raw), "v1")
    away_rps = 4
    replicas = rented({"assistant": 2 * fast * REPLICA_RPS + away_rps, "records": 0}, world)
    least = ceil(away_rps / REPLICA_RPS)
    assert least <= replicas <= least + 1
