"""What a controller shows at `/metrics`."""

import math
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.controller.metrics import CATALOGUE, LABELS, ControllerMetrics, Tick
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState, Hold, Snapshot
from tests.worlds import quote, small

HOME, CLOUD = "home-gpu/m-fp16", "cloud-gpu/m-fp16"
SMALL = small()
BURSTING = {"assistant": BurstState(phase=BurstPhase.BURSTING, pool="cloud-gpu")}
AT_HOME = {"assistant": BurstState()}


def tick(bursts: dict[str, BurstState], now_s: float = 1000) -> Tick:
    return Tick(
        catalogue=SMALL,
        snapshot=Snapshot(
            version=7,
            config_version="v1",
            created_at_s=now_s,
            endpoints={HOME: EndpointState(ready_replicas=1), CLOUD: EndpointState()},
            quotes={"home-gpu": quote(0.5, valid_s=math.inf), "cloud-gpu": quote(2.5, now_s=1000)},
            holds={"home-gpu": Hold.DRAINED},
            bursts=bursts,
            budget_left_usd={"assistant": 4},
        ),
        targets={HOME: 1, CLOUD: 2},
        existing={HOME: 1, CLOUD: 1},
        cost_usd={"home-gpu": 3},
        gateways=2,
        events={"scale": 3},
    )


Values = dict[tuple[str, ...], float]


def shown(metrics: ControllerMetrics, now_s: float = 1000) -> dict[str, Values]:
    """Values by metric and labels, in the order of the catalogue."""
    order = {m.name: m.labels for m in CATALOGUE}
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(metrics.exposition(now_s).decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[x] for x in order.get(sample.name, ()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_everything_that_is_shown_is_in_the_catalogue_and_the_other_way_round() -> None:
    metrics = ControllerMetrics()
    metrics.show(tick(AT_HOME))
    families = text_string_to_metric_families(metrics.exposition(1000).decode())
    names = {f.name + ("_total" if f.type == "counter" else ""): f.type for f in families}
    assert names == {m.name: m.kind for m in CATALOGUE}
    assert {label for m in CATALOGUE for label in m.labels} == set(LABELS)


def test_a_stale_quote_and_a_missing_one_are_not_usable() -> None:
    metrics = ControllerMetrics()
    metrics.show(tick(AT_HOME))
    usable = "orchestrator_quote_usable"
    assert shown(metrics, 1299)[usable] == {("home-gpu",): 1, ("cloud-gpu",): 1}
    assert shown(metrics, 1301)[usable] == {("home-gpu",): 1, ("cloud-gpu",): 0}
    assert shown(metrics)["orchestrator_quote_usd_per_gpu_hour"][("cloud-gpu",)] == 2.5
    assert shown(metrics)["orchestrator_quote_fetched_timestamp_seconds"] == {("cloud-gpu",): 1000}
    lost = tick(AT_HOME)
    without = lost.snapshot.model_copy(update={"quotes": {}})
    metrics.show(replace(lost, snapshot=without))
    assert shown(metrics)[usable] == {("home-gpu",): 0, ("cloud-gpu",): 0}


def test_a_change_of_phase_counts_once() -> None:
    metrics = ControllerMetrics()
    name = "orchestrator_burst_transitions_total"
    # What was so when the controller came is no change.
    metrics.show(tick(BURSTING))
    assert name not in shown(metrics)
    metrics.show(tick(AT_HOME))
    metrics.show(tick(BURSTING))
    metrics.show(tick(BURSTING))
    metrics.show(tick(AT_HOME))
    assert shown(metrics)[name] == {("assistant", "home"): 2, ("assistant", "bursting"): 1}
    phases = shown(metrics)["orchestrator_burst_phase"]
    assert phases == {
        ("assistant", "home"): 1,
        ("assistant", "bursting"): 0,
        ("assistant", "draining"): 0,
    }


def test_replicas_and_money_are_shown_by_what_they_are_for() -> None:
    metrics = ControllerMetrics()
    metrics.show(tick(AT_HOME))
    found = shown(metrics)
    home, cloud = ("home-gpu", "m-fp16"), ("cloud-gpu", "m-fp16")
    assert found["orchestrator_replicas_target"] == {home: 1, cloud: 2}
    assert found["orchestrator_replicas_ready"] == {home: 1, cloud: 0}
    assert found["orchestrator_replicas_existing"] == {home: 1, cloud: 1}
    assert found["orchestrator_pool_held"] == {("home-gpu", "drained"): 1}
    assert found["orchestrator_budget_usd_per_day"] == {("assistant",): 10}
    assert found["orchestrator_budget_left_usd"] == {("assistant",): 4}
    assert found["orchestrator_events_total"] == {("scale",): 3}
    assert found["orchestrator_cost_usd"] == {("home-gpu",): 3}


def test_nothing_of_the_fleet_is_shown_before_it_is_known() -> None:
    assert not any(name.startswith("orchestrator_replicas") for name in shown(ControllerMetrics()))
