"""Whatever comes, in whatever order: a declared replica is no zombie, and nor is the unknown."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signals.dcgm import Gpu
from orchestrator.signals.engine import EngineMetrics
from orchestrator.signals.reading import Reading
from orchestrator.zombies.find import SWEEPS_HEARD, find
from orchestrator.zombies.finding import Finding, Kind, Notes
from orchestrator.zombies.sweep import Endpoint, Engine, Instance, Sweep
from tests.zombies.world import CLOUD, HOME, START_S, SWEEP_S, catalogue

IDLE_S, GHOST_S = 120, 90
CATALOGUE = catalogue(idle_after_s=IDLE_S, ghost_after_s=GHOST_S)

MAX_AGE_S = SWEEPS_HEARD * SWEEP_S
NOTHING = EngineMetrics(0, 0, success=3, prompt_tokens=40, generation_tokens=9, started_s=1)
SAID = st.sampled_from(
    [
        None,
        *[NOTHING] * 6,
        replace(NOTHING, running=1),
        replace(NOTHING, waiting=1),
        replace(NOTHING, success=4),
        replace(NOTHING, success=None),
        replace(NOTHING, started_s=2),
        replace(NOTHING, success=0, prompt_tokens=0, generation_tokens=0),
    ]
)
USES = st.sampled_from([None, 0.0, 0.1, *[1.0] * 6])
MEMORY = st.sampled_from([None, 800.0, *[0.0] * 6])
PODS = st.sampled_from([*[frozenset[str]()] * 6, frozenset({"a/b"})])


@dataclass(frozen=True)
class Step:
    pause_s: float
    clock_s: float
    observed: bool
    ready: int
    standby: int
    held: bool
    open_requests: int | None
    said: tuple[EngineMetrics | None, ...]
    gpu: Gpu | None


STEPS = st.lists(
    st.builds(
        Step,
        pause_s=st.sampled_from([*[30.0] * 12, 1.0, 60.0, 95.0, 600.0, 5000.0]),
        clock_s=st.sampled_from([*[0.0] * 20, -3600.0, 3600.0]),
        observed=st.sampled_from([*[True] * 9, False]),
        ready=st.integers(0, 3),
        standby=st.sampled_from([*[0] * 4, 1, 2, 3]),
        held=st.sampled_from([*[False] * 9, True]),
        open_requests=st.sampled_from([*[0] * 6, None, 1]),
        said=st.tuples(SAID, SAID, SAID),
        gpu=st.none()
        | st.builds(Gpu, uuid=st.just("g"), utilization=USES, memory_used_mib=MEMORY, pods=PODS),
    ),
    min_size=6,
    max_size=16,
)


@dataclass
class Seen:
    now_s: float
    step: Step
    sweep: Sweep
    findings: list[Finding]


def history(steps: list[Step]) -> Iterator[Seen]:
    """Each step is a sweep; what was not heard is remembered with its age."""
    now_s, notes = START_S, Notes()
    said: dict[str, Reading[EngineMetrics]] = {}
    endpoint = Endpoint(observed_s=None)
    gpus: Reading[list[Gpu]] | None = None
    for step in steps:
        now_s += step.pause_s + step.clock_s
        names = [f"{CLOUD}/{n}" for n in range(step.ready)]
        for name, metrics in zip(names, step.said, strict=False):
            if metrics is not None:
                said[name] = Reading(metrics, now_s)
        if step.gpu is not None:
            gpus = Reading([step.gpu], now_s)
        if step.observed:
            endpoint = Endpoint(
                observed_s=now_s,
                ready=step.ready,
                target=step.ready,
                standby=step.standby,
                held=step.held,
                open_requests=step.open_requests,
                served=0,
                engines=tuple(Engine(n, 1, said.get(n)) for n in names),
            )
        sweep = Sweep(
            known=Reading(frozenset(CATALOGUE.candidates), now_s),
            endpoints={CLOUD: endpoint},
            gpus=(("away", gpus),) if gpus else (),
        )
        findings, notes = find(sweep, notes, CATALOGUE, now_s)
        yield Seen(now_s, step, sweep, findings)


@given(STEPS)
def test_a_declared_replica_is_never_found(steps: list[Step]) -> None:
    for seen in history(steps):
        endpoint = seen.sweep.endpoints[CLOUD]
        idle = sum(f.replicas for f in seen.findings if f.kind is Kind.IDLE)
        assert idle <= max(0, endpoint.ready - endpoint.standby)
        assert not (idle and (endpoint.held or endpoint.open_requests))


@given(STEPS)
def test_an_idle_replica_was_heard_of_all_the_time_and_has_done_nothing(
    steps: list[Step],
) -> None:
    past: list[Seen] = []
    for seen in history(steps):
        past.append(seen)
        for finding in seen.findings:
            if finding.kind is not Kind.IDLE:
                continue
            heard_s = seen.now_s
            ends = None
            for earlier in reversed(past):
                if heard_s <= finding.since_s:
                    break
                assert 0 <= heard_s - earlier.now_s <= MAX_AGE_S
                engines = {e.name: e for e in earlier.sweep.endpoints[CLOUD].engines}
                said = engines[finding.subject].metrics if finding.subject in engines else None
                if said is None or not 0 <= earlier.now_s - said.at_s <= MAX_AGE_S:
                    continue
                assert not said.value.running
                assert not said.value.waiting
                if said.value.success is None:
                    # What has ended there was not told: as if nothing was.
                    continue
                heard_s = earlier.now_s
                ends = ends or said.value.counters
                assert said.value.counters == ends
            assert seen.now_s - finding.since_s >= IDLE_S
            assert heard_s <= finding.since_s


@given(STEPS)
def test_a_ghost_was_seen_all_the_time(steps: list[Step]) -> None:
    past: list[Seen] = []
    for seen in history(steps):
        past.append(seen)
        for finding in seen.findings:
            if finding.kind is not Kind.GHOST:
                continue
            assert seen.now_s - finding.since_s >= GHOST_S
            for earlier in past:
                if finding.since_s <= earlier.now_s <= seen.now_s and earlier.step.gpu is not None:
                    gpu = earlier.step.gpu
                    assert not gpu.pods
                    assert gpu.utilization in (None, 1.0)
                    assert gpu.memory_used_mib in (None, 0.0)


@given(STEPS, st.integers(0, 15))
def test_nothing_is_found_once_all_sources_are_lost(steps: list[Step], from_: int) -> None:
    """From some sweep on nothing answers, and what was known grows old."""
    after: float | None = None
    now_s, notes, last = START_S, Notes(), None
    for number, seen in enumerate(history(steps)):
        now_s, last = seen.now_s, seen.sweep
        _, notes = find(seen.sweep, notes, CATALOGUE, now_s)
        if number >= from_:
            break
    assert last is not None
    instances = (Instance("left", "away", now_s, None, 1, False),)
    last = replace(last, instances=instances)
    for _ in range(8):
        now_s += SWEEP_S
        after = (after or 0) + SWEEP_S
        findings, notes = find(last, notes, CATALOGUE, now_s)
        if after > MAX_AGE_S:
            assert findings == []
    assert notes == {}


@given(st.lists(SAID, min_size=8, max_size=16))
def test_a_home_replica_that_is_declared_is_never_even_noted(said: list[EngineMetrics]) -> None:
    notes = Notes()
    for number, metrics in enumerate(said):
        now_s = START_S + number * SWEEP_S
        reading = Reading(metrics, now_s) if metrics else None
        endpoint = Endpoint(
            observed_s=now_s, ready=1, target=1, standby=1, engines=(Engine(HOME, 1, reading),)
        )
        sweep = Sweep(Reading(frozenset({HOME}), now_s), {HOME: endpoint})
        findings, notes = find(sweep, notes, CATALOGUE, now_s)
        assert findings == []
        assert notes == {}
