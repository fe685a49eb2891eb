"""What a finding says: since when, whose it is, what it has cost, what to do; and when it may be
given back."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.signals.reading import Reading
from orchestrator.zombies.find import find
from orchestrator.zombies.finding import Finding, Kind, Notes
from orchestrator.zombies.reclaim import due, obstacle
from orchestrator.zombies.sweep import Instance, Sweep
from tests.worlds import quote
from tests.zombies.expositions import Card, Vllm, dcgm
from tests.zombies.gpu_scenarios import EIGHTH, GHOST, SLICE, a_gpu_at_100_percent_without_a_byte
from tests.zombies.idle_scenarios import (
    a_burst_that_forgot_to_come_back,
    a_drain_that_waits_for_a_gateway_that_will_never_answer,
    cloud,
    three_replicas_behind_a_front_that_gateways_no_longer_use,
)
from tests.zombies.instance_scenarios import (
    an_adapter_of_last_year_beside_the_declared_one,
    an_orphan_whose_engine_does_not_answer,
    no_machine_to_be_had,
)
from tests.zombies.labelled import minutes
from tests.zombies.world import (
    CATALOGUE,
    CLOUD,
    IDLE_S,
    START_S,
    SWEEP_S,
    Frame,
    Watcher,
    catalogue,
    endpoint,
)

RULES = CATALOGUE.configuration.zombies


def last(frames: Iterator[Frame]) -> Finding:
    (finding,) = list(Watcher().run(frames))[-1]
    return finding


def test_an_idle_replica_says_since_when_whose_it_is_and_what_to_type() -> None:
    finding = last(a_burst_that_forgot_to_come_back())
    assert finding.since_s == START_S + 270  # the sweep that saw the last answer counted
    assert (finding.pool, finding.endpoint, finding.replicas) == ("cloud-gpu", CLOUD, 1)
    assert (finding.owner, finding.workloads) == (None, ["assistant"])
    assert finding.mend == f"orchestrator zombies {CLOUD} --reclaim --no-dry-run"
    assert finding.evidence.endswith("0 of them declared, for 16 min")


def test_what_it_cost_is_the_price_of_its_gpus_over_the_time_stale_quote_or_not() -> None:
    finding = last(three_replicas_behind_a_front_that_gateways_no_longer_use())
    assert finding.cost_usd == pytest.approx(3 * 2.0 * 0.25)


def test_behind_a_front_only_the_replicas_beyond_the_declared_are_to_go() -> None:
    finding = last(cloud(Vllm(stopped=8), ready=3, standby=1) for _ in minutes(15))
    assert finding.replicas == 2
    assert finding.cost_usd == pytest.approx(2 * 2.0 * 0.25)


def test_a_price_that_changes_counts_from_then_on() -> None:
    notes, at_s, spent = Notes(), START_S, 0.0
    instance = Instance("cloud-gpu--old", "away", 0, "cloud-gpu/old", 2, False)
    for number in range(20):
        usd = 1.0 if number < 10 else 4.0
        spent += 2 * usd * SWEEP_S / 3600 if number else 0
        sweep = Sweep(
            known=Reading(frozenset({CLOUD}), at_s),
            instances=(replace(instance, observed_s=at_s),),
            # While there is no price, the sum waits.
            quotes={"cloud-gpu": quote(usd)},
        )
        findings, notes = find(sweep, notes, CATALOGUE, at_s)
        at_s += SWEEP_S
    assert findings[0].cost_usd == pytest.approx(spent)
    findings, notes = find(replace(sweep, quotes={}), notes, CATALOGUE, at_s - 1)
    assert findings[0].cost_usd == pytest.approx(spent)


def test_without_any_price_the_cost_is_not_known_and_not_zero() -> None:
    instance = Instance("somebody's", "away", 0, None, 1, False)
    (finding,) = list(Watcher().run(Frame(instances=(instance,)) for _ in minutes(5)))[-1]
    assert finding.cost_usd is None
    assert (finding.pool, finding.owner, finding.workloads) == (None, None, [])


def test_a_ghost_names_the_gpu_and_how_to_reset_it() -> None:
    finding = last(a_gpu_at_100_percent_without_a_byte())
    uuid = finding.subject.split("/")[1]
    assert finding.pool == "cloud-gpu"  # its cluster's only one of L40S
    assert finding.cost_usd == pytest.approx(2.0 * 8 / 60)
    assert finding.mend.startswith("kubectl drain gpu-node-1 --ignore-daemonsets")
    assert finding.mend.endswith(f"nvidia-smi --gpu-reset -i {uuid}")
    assert "100% busy with 0 MiB of memory and no pod, at 71 W" in finding.evidence


@pytest.mark.parametrize(("card", "usd"), [(EIGHTH, None), (SLICE, None)])
def test_a_gpu_of_a_kind_that_no_pool_of_its_cluster_has_is_found_without_a_price(
    card: Card, usd: float | None
) -> None:
    findings = list(Watcher().run(Frame(gpus=dcgm(card)) for _ in minutes(6)))[-1]
    assert [(f.pool, f.cost_usd) for f in findings] == [(None, usd)]


def test_an_l4_is_not_taken_for_an_l40s() -> None:
    card = replace(GHOST, model="NVIDIA L4")
    findings = list(Watcher().run(Frame(gpus=dcgm(card)) for _ in minutes(6)))[-1]
    assert [f.pool for f in findings] == [None]


def test_a_slice_of_a_gpu_costs_its_share() -> None:
    card = replace(SLICE, model="NVIDIA L40S")
    findings = list(Watcher().run(Frame(gpus=dcgm(card)) for _ in minutes(7)))[-1]
    assert findings[0].cost_usd == pytest.approx(2.0 * 3 / 7 * 7 / 60)


def test_a_late_replica_says_what_the_cluster_says() -> None:
    finding = last(no_machine_to_be_had())
    assert "Insufficient nvidia.com/gpu" in finding.evidence
    assert finding.replicas == 2


def test_an_adapter_costs_nothing_more_and_is_unloaded_by_name() -> None:
    finding = last(an_adapter_of_last_year_beside_the_declared_one())
    assert finding.cost_usd == 0
    assert finding.owner == "gpu-team@company.example"
    assert """-d '{"lora_name": "law-2023"}'""" in finding.mend
    assert "/pools/home-gpu/m-law/v1/unload_lora_adapter" in finding.mend


def test_the_name_of_an_adapter_cannot_run_a_command() -> None:
    evil = "x'; rm -rf / #"
    infos = [(evil.replace(",", ""), "", START_S)]
    frame = Frame(
        endpoints={CLOUD: endpoint(1, standby=1)},
        engines={CLOUD: {CLOUD: Vllm(running=1, infos=infos).text()}},
    )
    (finding,) = list(Watcher().run(frame for _ in minutes(12)))[-1]
    import shlex

    assert shlex.split(finding.mend)[-1] == '{"lora_name": "' + evil + '"}'


def test_it_is_first_reported_when_it_is_first_found_and_keeps_that_time() -> None:
    watcher = Watcher()
    sweeps = list(watcher.run(a_burst_that_forgot_to_come_back()))
    reported = [f.reported_s for findings in sweeps for f in findings]
    assert set(reported) == {START_S + 270 + IDLE_S}


def idle(reported_s: float = 0, **changes: object) -> Finding:
    finding = last(a_burst_that_forgot_to_come_back())
    return finding.model_copy(update={"reported_s": reported_s, **changes})


def test_nothing_is_given_back_before_its_notice_is_over() -> None:
    finding = idle(reported_s=1000)
    reason = obstacle(finding, RULES, 1000 + RULES.notice_s - 1)
    assert reason is not None
    assert "1 s left" in reason
    assert obstacle(finding, RULES, 1000 + RULES.notice_s) is None


def test_the_policy_gives_back_what_it_names_and_nothing_else() -> None:
    findings = [idle(), idle(kind=Kind.ORPHAN), idle(kind=Kind.PENDING)]
    later_s = RULES.notice_s + 1
    assert due(findings, RULES, later_s) == []
    reclaims = catalogue(idle="reclaim").configuration.zombies
    assert due(findings, reclaims, later_s) == [findings[0]]
    assert due(findings, reclaims, later_s - 2) == []


def test_an_orphan_of_which_nobody_knows_whether_it_serves_is_left_alone() -> None:
    finding = last(an_orphan_whose_engine_does_not_answer())
    assert obstacle(finding, RULES, finding.reported_s + 1e6) is not None


def test_a_drain_that_waits_for_a_gateway_is_found_and_never_forced() -> None:
    frames = a_drain_that_waits_for_a_gateway_that_will_never_answer()
    finding = last(frames)
    assert obstacle(finding, RULES, finding.reported_s + 1e6) == finding.doubt is not None


@pytest.mark.parametrize("kind", [Kind.GHOST, Kind.ADAPTER, Kind.PENDING])
def test_what_needs_hands_is_never_given_back(kind: Kind) -> None:
    assert obstacle(idle(kind=kind), RULES, 1e12) is not None
