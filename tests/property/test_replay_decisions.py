"""What was decided can be decided again, from what was written down: byte for byte."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings

from orchestrator.config.data_class import DataClass
from orchestrator.config.store import PolicyStore
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.explain import explain
from orchestrator.policy.facts import Facts
from orchestrator.policy.facts_record import recall, record
from orchestrator.policy.probe import failures
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState, Quote, Snapshot
from orchestrator.policy.view import View
from orchestrator.traces.arrivals import Arrival, read, synthetic_conversation
from tests.unit.test_config import copy
from tests.worlds import questions, small

EXAMPLES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "1000"))
DATA = Path(
    os.environ.get("ORCHESTRATOR_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
TRACE = DATA / "traces" / "azure2023_conv.csv.gz"

DAYS_S = 2 * 86400
SNAPSHOT_S = 300
DECISIONS = 6000
GATEWAYS = ("gw-a", "gw-b")


def shown(decision: Decision) -> bytes:
    return orjson.dumps(explain(decision))


@settings(max_examples=EXAMPLES, deadline=None)
@given(questions())
def test_a_decision_can_be_made_again_from_recorded_facts(case: tuple[Facts, View]) -> None:
    facts, view = case
    row = orjson.loads(orjson.dumps(record(facts, view.catalogue)))
    assert shown(decide(recall(row, view.catalogue), view)) == shown(decide(facts, view))


def test_only_what_differs_from_the_defaults_is_written() -> None:
    world = small()
    bare = Facts("assistant", "m")
    assert record(bare, world) == {"workload": "assistant", "model": "m"}
    assert record(bare._replace(inflight=world.counts({})), world) == record(bare, world)
    busy = bare._replace(inflight=world.counts({"cloud-gpu/m-fp16": 3}), max_tokens=5)
    assert record(busy, world) == {
        "workload": "assistant",
        "model": "m",
        "max_tokens": 5,
        "inflight": {"cloud-gpu/m-fp16": 3},
    }


@pytest.mark.parametrize("row", [{}, {"workload": "w", "model": "m", "mood": 1}])
def test_what_is_not_a_record_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        recall(row, None)  # type: ignore[arg-type]


def test_a_record_with_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown data class"):
        recall({"workload": "w", "model": "m", "claimed": "secret"}, None)  # type: ignore[arg-type]


def arrivals() -> list[Arrival]:
    """The shape of a real trace where there is one, stretched over two days."""
    trace = read(TRACE) if TRACE.exists() else synthetic_conversation(2100, seed=5)
    kept = trace[:: max(1, len(trace) // DECISIONS)][:DECISIONS]
    stretch = DAYS_S / (kept[-1].arrival_s + 1)
    return [replace(a, arrival_s=a.arrival_s * stretch) for a in kept]


def fleet(
    catalogue: Catalogue, now_s: float, version: int, random: np.random.Generator
) -> Snapshot:
    """A fleet in which prices wander, replicas come and go, and bursts begin and end."""
    return Snapshot(
        version=version,
        config_version=catalogue.version,
        created_at_s=now_s,
        endpoints={
            endpoint: EndpointState(
                ready_replicas=int(random.random() > 0.1),
                inflight={g: int(random.integers(0, 12)) for g in GATEWAYS},
                ttft_p95_s=float(random.gamma(2, 0.5)),
                slot_s=float(random.gamma(2, 3)) if random.random() > 0.2 else None,
            )
            for endpoint in catalogue.candidates
        },
        quotes={
            pool: Quote(
                usd_per_gpu_hour=float(random.lognormal(0.9, 0.3)),
                source="market",
                fetched_at_s=now_s,
                valid_to_s=now_s + 300,
            )
            for pool in catalogue.pools
            if random.random() > 0.05
        },
        bursts={
            "assistant": BurstState(
                phase=list(BurstPhase)[random.integers(0, 3)], pool="cloud-cpu", since_s=now_s
            )
        },
        budget_left_usd={"assistant": float(random.normal(10, 8))},
    )


def request(catalogue: Catalogue, arrival: Arrival, random: np.random.Generator) -> Facts:
    endpoints = list(catalogue.candidates)
    failed = random.random() < 0.05
    return Facts(
        workload=str(random.choice(list(catalogue.workloads))),
        model="tiny" if random.random() > 0.02 else "unheard-of",
        claimed=DataClass(int(random.choice(4, p=[0.85, 0.05, 0.05, 0.05]))),
        content=DataClass(int(random.choice(4, p=[0.9, 0.04, 0.03, 0.03]))),
        max_tokens=arrival.prompt_tokens + arrival.output_tokens,
        prompt_tokens=arrival.prompt_tokens,
        snapshot_age_s=float(random.exponential(20)),
        inflight=catalogue.counts({e: int(random.integers(0, 20)) for e in endpoints}),
        excluded={str(random.choice(endpoints)): "failed this request"} if failed else {},
        affinity={e: float(random.random()) for e in endpoints if random.random() < 0.3},
        smaller_variant=bool(random.random() < 0.05),
    )


def live_through(store: PolicyStore, source: Path) -> Iterator[dict[str, Any]]:
    """Two days of a service whose rules change on the second; rows of snapshots and decisions."""
    random = np.random.default_rng(2)
    version = store.apply(source, failures).version
    snapshots = 0
    view: View | None = None
    for arrival in arrivals():
        now_s = arrival.arrival_s
        if now_s > DAYS_S / 2 and len(store.history()) == 1:
            rules = source / "workloads.yaml"
            rules.write_text(
                rules.read_text().replace("usd_per_gpu_hour: 3.0", "usd_per_gpu_hour: 2.5")
            )
            version = store.apply(source, failures).version
            view = None
        if view is None or now_s - view.snapshot.created_at_s > SNAPSHOT_S:
            catalogue = catalogue_of(store, version)
            snapshots += 1
            gateway = GATEWAYS[snapshots % 2]
            view = View(catalogue, fleet(catalogue, now_s, snapshots, random), gateway)
            yield {"snapshot": view.snapshot.model_dump(mode="json"), "gateway": gateway}
        facts = request(view.catalogue, arrival, random)
        decision = decide(facts, view)
        yield {
            "facts": record(facts, view.catalogue),
            "policy_version": decision.policy_version,
            "explained": shown(decision).decode(),
        }


def catalogue_of(store: PolicyStore, version: str) -> Catalogue:
    loaded = store.load(version)
    return Catalogue(loaded.configuration, loaded.version)


def test_two_days_of_decisions_are_made_again_from_their_rows(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source, state = copy(tmp_path / "source"), tmp_path / "state"
    rows = [orjson.dumps(row) for row in live_through(PolicyStore(state), source)]
    (source / "workloads.yaml").write_text("what stands here now is of no account\n")

    store = PolicyStore(state)
    catalogues: dict[str, Catalogue] = {}
    view: View | None = None
    again, outcomes, snapshots = 0, set(), 0
    for row in map(orjson.loads, rows):
        if "snapshot" in row:
            snapshot = Snapshot.model_validate(row["snapshot"])
            version = snapshot.config_version
            if version not in catalogues:
                catalogues[version] = catalogue_of(store, version)
            view = View(catalogues[version], snapshot, row["gateway"])
            snapshots += 1
            continue
        assert view is not None
        assert row["policy_version"] == view.catalogue.version
        decision = decide(recall(row["facts"], view.catalogue), view)
        assert shown(decision).decode() == row["explained"]
        again += 1
        outcomes.add(decision.denied or decision.grant.candidate.endpoint)  # type: ignore[union-attr]
        outcomes.update(v.rejected_by for v in decision.verdicts)
    assert again > 5000
    assert snapshots > 500
    assert len(catalogues) == 2
    seen = {"onprem-cpu/tiny-bf16", "cloud-cpu/tiny-bf16", "no_capacity"}
    seen |= {"model_not_found", "context_length", "price", "budget", "burst", "data_class"}
    assert seen <= outcomes, "the two days must have been eventful"
