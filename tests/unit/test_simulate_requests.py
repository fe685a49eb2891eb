"""What becomes of single requests in a simulation: who waits for how long, who makes way, what is
refused at once, and where an answer goes on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate import decider
from orchestrator.simulate.policies import CapacityPolicy
from orchestrator.simulate.prices import Prices, Series
from orchestrator.simulate.run import Arrivals, Setting, simulate
from orchestrator.simulate.tally import Tally
from tests.worlds import timed

EPOCH_S = 1_700_000_000.0
ASSISTANT, RECORDS = 0, 1
Row = tuple[float, int, int, int]
"""Arrival, prompt, output, workload."""


@dataclass
class AsTheyAre:
    """Every pool at its minimum."""

    catalogue: Catalogue
    name: str = "as they are"
    seen: list[Observation] = field(default_factory=list)

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        self.seen.append(seen)
        targets = {e: c.pool.min_replicas for e, c in self.catalogue.candidates.items()}
        return Plan({}, targets, dict.fromkeys(targets, self.name), {})


def world(change: Callable[[dict[str, Any]], None] = lambda raw: None) -> Catalogue:
    """One replica at home, of four sequences and a backlog of one."""
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
    change(raw)
    return Catalogue(Configuration.model_validate(raw), "v1")


def run(
    catalogue: Catalogue,
    rows: list[Row],
    policy: CapacityPolicy | None = None,
    supply: dict[str, Series] | None = None,
    tick_s: float = 1.0,
    seed: int = 0,
) -> Tally:
    setting = Setting(
        catalogue,
        Prices(catalogue.configuration, {"cloud-gpu": Series([0.0], [2.0])}, EPOCH_S),
        EPOCH_S,
        supply=supply or {},
        tick_s=tick_s,
        seed=seed,
    )
    at_s, prompt, output, group = (np.array(column) for column in zip(*sorted(rows), strict=True))
    block = Arrivals(at_s.astype(float), prompt.astype(float), output.astype(float), group)
    return simulate(setting, [block], policy or AsTheyAre(catalogue))


def limit_queue(raw: dict[str, Any]) -> None:
    raw["gateway"]["max_queued_requests"] = 2


def prefer_records(raw: dict[str, Any]) -> None:
    raw["workloads"][RECORDS]["priority"] = 90
    raw["workloads"][ASSISTANT]["priority"] = 10


FULL: list[Row] = [(0.1, 100, 2000, RECORDS)] * 5
"""All slots and the backlog, for half a minute."""


def test_over_the_limit_of_the_queue_the_least_important_is_refused() -> None:
    def change(raw: dict[str, Any]) -> None:
        limit_queue(raw)
        prefer_records(raw)

    waits: list[Row] = [(1.0, 10, 5, ASSISTANT), (1.1, 10, 5, ASSISTANT)]
    comes: list[Row] = [(1.2, 10, 5, RECORDS)]
    tally = run(world(change), [*FULL, *waits, *comes])
    assert tally.workloads["assistant"].shed == 1
    assert tally.workloads["records"].shed == 0


def test_of_equals_the_newest_of_who_asks_for_most_is_refused() -> None:
    large, newest = (1.0, 3000, 5, ASSISTANT), (1.1, 1, 7, ASSISTANT)
    tally = run(world(limit_queue), [*FULL, large, newest, (1.2, 10, 5, RECORDS)])
    assert tally.workloads["records"].shed == 0
    assistant = tally.workloads["assistant"]
    assert (assistant.shed, assistant.output_tokens) == (1, 5)


def test_patience_ends_at_its_time_and_not_at_the_next_tick() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["workloads"][ASSISTANT]["slo"]["deadline_s"] = 3.0

    catalogue = world(change)
    rows: list[Row] = [*FULL, (0.9, 10, 5, ASSISTANT), (100.0, 10, 1, RECORDS)]
    policy = AsTheyAre(catalogue)
    tally = run(catalogue, rows, policy, tick_s=2.0)
    assert tally.workloads["assistant"].shed == 1
    queued = [seen.endpoints["home-gpu/m-fp16"].queued for seen in policy.seen]
    # It waits at 2 s; before 4 s it is gone.
    assert queued[:4] == [0, 1, 0, 0]


def test_who_cannot_have_a_slot_in_time_is_refused_at_once() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["workloads"][ASSISTANT]["slo"]["deadline_s"] = 8.0

    catalogue = world(change)
    # Slots are known to be held for 20 s and more when the last ones come.
    first: list[Row] = [(0.1, 100, 1000, RECORDS)] * 5
    second: list[Row] = [(25.5 + n / 100, 100, 2000, RECORDS) for n in range(6)]
    policy = AsTheyAre(catalogue)
    tally = run(catalogue, [*first, *second, (27.2, 10, 5, ASSISTANT)], policy)
    assert tally.workloads["assistant"].shed == 1
    assert max(seen.endpoints["home-gpu/m-fp16"].queued for seen in policy.seen[28:]) <= 2


def test_what_is_longer_than_the_context_is_refused() -> None:
    tally = run(world(), [(1.0, 4000, 96, RECORDS), (2.0, 4000, 97, RECORDS)])
    records = tally.workloads["records"]
    assert (records.served, records.shed) == (1, 1)


def test_an_answer_over_the_time_limit_is_cut_off() -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["gateway"]["timeouts"]["total_s"] = 30

    tally = run(world(change), [(1.0, 10, 2800, RECORDS), (1.0, 10, 3100, RECORDS)])
    records = tally.workloads["records"]
    assert (records.served, records.shed) == (0, 2)
    tally = run(world(change), [(1.0, 10, 2800, RECORDS)])
    assert tally.workloads["records"].served == 1


def two_at_home(raw: dict[str, Any]) -> None:
    raw["pools"][0] |= {"min_replicas": 2, "max_replicas": 2}


LOSS = {"home-gpu": Series([0.0, 10.0], [2.0, 1.0])}


def test_answers_go_on_with_their_variant_where_a_replica_is_left() -> None:
    rows: list[Row] = [(1.0, 100, 2000, RECORDS), (1.5, 100, 2000, RECORDS)]
    tally = run(world(two_at_home), rows, supply=LOSS)
    records = tally.workloads["records"]
    assert tally.replicas_lost == 1
    assert (records.served, records.output_tokens) == (2, 4000)
    assert records.by_zone == {"onprem": 3}


def test_an_answer_that_has_begun_goes_on_with_no_other_variant() -> None:
    def change(raw: dict[str, Any]) -> None:
        variant = raw["models"][0]["variants"][0]
        raw["pools"].append(raw["pools"][0] | {"name": "other-gpu"})
        raw["models"][0]["variants"].append(
            variant | {"name": "m-awq", "pools": ["other-gpu"], "quality": 0.9}
        )

    catalogue = world(change)
    only = {"home-gpu": Series([0.0, 10.0], [1.0, 0.0])}
    # The first goes to the first of equals; the others have said nothing when it is lost.
    tally = run(catalogue, [(9.0, 100, 2000, RECORDS)], supply=only)
    assert tally.workloads["records"].shed == 1
    tally = run(catalogue, [(9.9999, 100, 200, RECORDS)], supply=only)
    assert tally.workloads["records"].served == 1


def test_slots_are_held_where_they_were_and_busy_time_stays_when_a_replica_is_lost() -> None:
    catalogue = world()
    policy = AsTheyAre(catalogue)
    only = {"home-gpu": Series([0.0, 10.0], [1.0, 0.0])}
    tally = run(catalogue, [(1.0, 100, 2000, RECORDS)], policy, supply=only)
    number = catalogue.candidates["home-gpu/m-fp16"].number
    assert tally.model.busy_s()[number] == pytest.approx(9.0)
    assert any(seen.endpoints["home-gpu/m-fp16"].slot_s for seen in policy.seen)


def test_any_replica_may_be_the_one_that_is_lost() -> None:
    rows: list[Row] = [(9.0, 100, 200, RECORDS)]
    moved = {
        run(world(two_at_home), rows, supply=LOSS, seed=seed).workloads["records"].by_zone["onprem"]
        for seed in range(8)
    }
    # Sent once where the other one was lost, and twice where it was its own.
    assert moved == {1, 2}


def test_latencies_are_of_those_who_are_served() -> None:
    only = {"home-gpu": Series([0.0, 10.0], [1.0, 0.0])}
    tally = run(world(), [(1.0, 100, 2000, RECORDS)], supply=only)
    assert tally.workloads["records"].shed == 1
    assert tally.workloads["records"].ttft_p50_s is None


def test_what_is_forgotten_is_asked_again_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [(n * 0.3, 50 + n, 40 + n, n % 2) for n in range(200)]
    usual = run(world(two_at_home), rows, supply=LOSS)
    monkeypatch.setattr(decider, "MOST_KNOWN", 1)
    forgetful = run(world(two_at_home), rows, supply=LOSS)
    assert forgetful.workloads == usual.workloads
    assert len(forgetful.model.scores) < len(usual.model.scores)


def test_a_tick_is_paid_for_at_the_price_that_held_in_it() -> None:
    catalogue = timed()
    prices = Prices(
        catalogue.configuration,
        {"home-gpu": Series([0.0, 1.0], [3600.0, 7200.0]), "cloud-gpu": Series([0.0], [2.0])},
        EPOCH_S,
    )
    at_s = np.array([0.5, 1.5])
    block = Arrivals(at_s, np.ones(2), np.ones(2), np.full(2, RECORDS))
    tally = simulate(Setting(catalogue, prices, EPOCH_S), [block], AsTheyAre(catalogue))
    assert tally.duration_s == 2
    assert tally.usd_by_pool["home-gpu"] == pytest.approx(3)
