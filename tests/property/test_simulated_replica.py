"""A simulated replica says every token when vLLM's scheduler would say it: the kernel, which goes
over many steps at once, beside the scheduler's loop written plainly, token by token."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit  # type: ignore[attr-defined]

from orchestrator.simulate.fleet_model import FleetModel
from orchestrator.simulate.kernel import replica
from orchestrator.simulate.tables import NOBODY, State
from tests.worlds import timed

SEQUENCES, BATCH_TOKENS, KV_TOKENS = 4, 64, 300
STEP_S, STEP_MORE_S, READ_S = 0.01, 0.002, 0.0005
MOST_TOKENS = 250
"""Of a request: fewer than the cache holds, as vLLM asks for."""


@dataclass
class Asked:
    number: int
    arrival_s: float
    prompt: int
    output: int
    computed: int = 0
    is_read: bool = False
    said: int = 0
    first_s: float = field(default=np.nan)
    end_s: float = field(default=np.nan)

    @property
    def known(self) -> int:
        return self.prompt + self.said


class Scheduler:
    """vLLM V1: what runs goes first, by order of admission; then what waits. Who is preempted is
    the latest, and nobody is admitted in that step."""

    def __init__(self) -> None:
        self.waiting: deque[Asked] = deque()
        self.running: list[Asked] = []
        self.now_s = 0.0

    def step(self) -> None:
        budget, preempted, computed = BATCH_TOKENS, False, dict[int, int]()
        reads = {r.number for r in self.waiting}
        reads |= {r.number for r in self.running if not r.is_read}
        position = 0
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            tokens = min(request.known - request.computed, budget)
            while self._free() < tokens and len(self.running) > 1:
                victim = self.running.pop()
                victim.computed, victim.is_read = 0, False
                computed.pop(victim.number, None)
                self.waiting.appendleft(victim)
                preempted = True
                if victim is request:
                    break
            if request not in self.running:
                break
            request.computed += tokens
            computed[request.number] = tokens
            budget -= tokens
            position += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < SEQUENCES:
            request = self.waiting[0]
            if self.running and request.known > self._free():
                break
            self.waiting.popleft()
            tokens = min(request.known, budget)
            request.computed = computed[request.number] = tokens
            budget -= tokens
            self.running.append(request)
        self._time_passes(computed, reads)
        for request in [r for r in self.running if r.computed == r.known]:
            request.is_read = True
            request.said += 1
            if request.said == 1:
                request.first_s = self.now_s
            if request.said == request.output:
                request.end_s = self.now_s
                self.running.remove(request)

    def _time_passes(self, computed: dict[int, int], reads: set[int]) -> None:
        decoding = len(computed.keys() - reads)
        if decoding:
            self.now_s += STEP_S + STEP_MORE_S * (decoding - 1)
        self.now_s += sum(computed[number] for number in computed.keys() & reads) * READ_S

    def _free(self) -> int:
        return KV_TOKENS - sum(r.computed for r in self.running)


def expected(rows: list[tuple[float, int, int]]) -> list[tuple[float, float]]:
    """When each has its first token and its last."""
    asked = [Asked(number, *row) for number, row in enumerate(rows)]
    scheduler, coming = Scheduler(), deque(asked)
    while coming or scheduler.waiting or scheduler.running:
        if not scheduler.waiting and not scheduler.running:
            scheduler.now_s = max(scheduler.now_s, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= scheduler.now_s:
            scheduler.waiting.append(coming.popleft())
        scheduler.step()
    return [(a.first_s, a.end_s) for a in asked]


@njit  # type: ignore[untyped-decorator]
def take(state: State, number: int) -> None:
    replica.take(state, 0, number)


@njit  # type: ignore[untyped-decorator]
def end_steps(state: State) -> None:
    replica.end_steps(state, 0)


def simulated(rows: list[tuple[float, int, int]]) -> list[tuple[float, float]]:
    model = FleetModel(timed())
    model.start(0, 0.0)
    state = model.state
    given = {
        "sequences": SEQUENCES,
        "batch_tokens": BATCH_TOKENS,
        "kv_tokens": KV_TOKENS,
        "step_s": STEP_S,
        "step_more_s": STEP_MORE_S,
        "read_s": READ_S,
    }
    for name, value in given.items():
        state.endpoints[name][0] = value
    moment, requests = state.moment[0], state.requests
    moment["free"] = NOBODY
    ends_s = np.full(len(rows), np.nan)
    coming = deque(enumerate(rows))
    while coming or moment["events"]:
        event_s = state.agenda["when_s"][0] if moment["events"] else np.inf
        if coming and coming[0][1][0] < event_s:
            number, (arrival_s, prompt, output) = coming.popleft()
            row = requests[number]
            moment["clock_s"] = row["arrival_s"] = arrival_s
            row["prompt_tokens"], row["output_tokens"] = prompt, output
            row["first_token_s"] = row["held_from_s"] = np.nan
            take(state, number)
        else:
            moment["clock_s"], free = event_s, moment["free"]
            end_steps(state)
            while moment["free"] != free:
                ends_s[moment["free"]] = event_s
                moment["free"] = requests["following"][moment["free"]]
    assert state.replicas["kv_tokens"][0] == 0
    assert state.endpoints["inflight"][0] == -len(rows)
    return list(zip(requests["first_token_s"][: len(rows)].tolist(), ends_s.tolist(), strict=True))


# Nothing comes at the very moment at which a step ends, where either order would do.
requests = st.lists(
    st.tuples(
        st.integers(0, 15_000).map(lambda n: n * 2**0.5 * 1e-4),
        st.integers(1, MOST_TOKENS - 60),
        st.integers(1, 60),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda row: row[0],
).map(sorted)


@settings(max_examples=300, deadline=None)
@given(requests)
def test_tokens_come_when_the_scheduler_would_say_them(rows: list[tuple[float, int, int]]) -> None:
    for got, want in zip(simulated(rows), expected(rows), strict=True):
        assert got == pytest.approx(want, abs=1e-6)


def test_who_was_admitted_last_makes_way_when_the_cache_is_full_and_is_read_anew() -> None:
    rows = [(0.0, 120, 60), (0.01, 120, 60)]
    (first, second) = simulated(rows)
    alone = simulated(rows[:1])[0]
    # The first goes on alone from where the cache was full.
    assert first[1] < second[1]
    assert second[1] - second[0] > (alone[1] - alone[0]) + 120 * READ_S


def test_the_first_token_comes_at_the_end_of_the_step_that_ends_the_prompt() -> None:
    (only,) = simulated([(1.0, 100, 1)])
    assert only == pytest.approx((1 + 100 * READ_S, 1 + 100 * READ_S))


def test_prompts_are_read_with_what_sequences_leave_of_the_budget() -> None:
    _, second = simulated([(0.0, 10, 60), (0.1, 2 * BATCH_TOKENS, 1)])
    # Three steps: two of one token less than the budget, and one of the last two.
    assert second[0] - 0.1 > 3 * STEP_S + 2 * BATCH_TOKENS * READ_S
