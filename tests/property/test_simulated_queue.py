"""The simulated queue does what the gateway's does, whoever comes, goes, rests and ends."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit  # type: ignore[attr-defined]

from orchestrator.config.spec import Configuration
from orchestrator.gateway.fair_queue import FairQueue, Ticket
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.fleet_model import FleetModel
from orchestrator.simulate.kernel import queue, service
from orchestrator.simulate.tables import NOBODY, State
from tests.worlds import timed

LIMIT = 4


def world() -> Catalogue:
    raw: dict[str, Any] = timed().configuration.model_dump(mode="json")
    raw["gateway"]["max_queued_requests"] = LIMIT
    assistant, records = raw["workloads"]
    raw["workloads"] = [
        assistant,
        records,
        assistant | {"name": "abroad", "allowed_zones": ["cloud"]},
        records | {"name": "summaries", "priority": 10},
    ]
    return Catalogue(Configuration.model_validate(raw), "v1")


WORLD = world()
NAMES = list(WORLD.workloads)


@njit  # type: ignore[untyped-decorator]
def join(state: State, number: int) -> None:
    queue.join(state, number)


@njit  # type: ignore[untyped-decorator]
def head(state: State) -> int:
    found: int = queue.head(state)
    return found


@njit  # type: ignore[untyped-decorator]
def go(state: State, number: int) -> None:
    queue.leave(state, number)
    service.goes(state, number)


@njit  # type: ignore[untyped-decorator]
def ended(state: State, number: int, prompt_tokens: float, output_tokens: float) -> None:
    service.ended(state, number, prompt_tokens, output_tokens)


@njit  # type: ignore[untyped-decorator]
def rest(state: State, group: int) -> None:
    queue.rest(state, group, 1e9)


@njit  # type: ignore[untyped-decorator]
def stir(state: State, endpoint: int) -> None:
    queue.stir(state, endpoint)


@njit  # type: ignore[untyped-decorator]
def ahead(state: State, group: int) -> int:
    count: int = queue.ahead(state, group)
    return count


class Both:
    """A queue of each kind, which are told the same."""

    def __init__(self) -> None:
        self.state = FleetModel(WORLD).state
        self.state.moment["free"] = NOBODY
        self.real: FairQueue[Ticket] = FairQueue(LIMIT)
        self.tickets: dict[int, Ticket] = {}
        """Who waits, by the number in the simulation."""
        self.open: dict[int, tuple[str, float]] = {}
        """Who was sent: whose it is, and what is expected of it."""
        self.numbers = iter(range(1000))

    def joins(self, group: int, prompt_tokens: int) -> None:
        number, workload = next(self.numbers), WORLD.workloads[NAMES[group]]
        row = self.state.requests[number]
        row["group"], row["prompt_tokens"] = group, prompt_tokens
        join(self.state, number)
        places = self.places(group)
        ticket = Ticket(
            workload.name,
            workload.priority,
            workload.name,
            places,
            (),
            0.0,
            self.real.expected_tokens(workload.name, prompt_tokens, 0),
        )
        self.tickets[number] = ticket
        shed = self.real.join(ticket)
        freed = int(self.state.moment["free"][0])
        assert (shed is None) == (freed == NOBODY)
        if shed is not None:
            assert self.tickets.pop(freed) is shed
            self.state.moment["free"] = NOBODY

    def first_goes(self) -> None:
        group, heads = head(self.state), self.real.heads()
        if group == NOBODY:
            assert not heads
            return
        number = int(self.state.groups["first"][group])
        ticket = self.tickets.pop(number)
        assert heads[0] is ticket
        go(self.state, number)
        self.real.leave(ticket)
        prompt_tokens = int(self.state.requests["prompt_tokens"][number])
        expected = self.real.expected_tokens(ticket.workload, prompt_tokens, 0)
        self.real.goes(ticket.workload, ticket.priority, expected)
        self.open[number] = ticket.workload, expected

    def one_ends(self, output_tokens: int) -> None:
        if self.open:
            number, (workload, expected) = self.open.popitem()
            prompt_tokens = int(self.state.requests["prompt_tokens"][number])
            ended(self.state, number, prompt_tokens, output_tokens)
            self.real.ended(workload, expected, prompt_tokens, output_tokens)

    def first_rests(self) -> None:
        group = head(self.state)
        if group != NOBODY:
            rest(self.state, group)
            self.real.rest(self.tickets[int(self.state.groups["first"][group])])

    def stirs(self, endpoint: int) -> None:
        stir(self.state, endpoint)
        self.real.stir(list(WORLD.candidates)[endpoint])

    def places(self, group: int) -> list[str]:
        workload = WORLD.workloads[NAMES[group]]
        selection = WORLD.selection(
            workload.name, workload.models[0], workload.data_class, smaller_variant=False
        )
        return list(selection.position)

    def check(self) -> None:
        for group, name in enumerate(NAMES):
            priority = WORLD.workloads[name].priority
            assert ahead(self.state, group) == self.real.ahead(name, priority, self.places(group))
            assert self.state.groups["service"][group] == pytest.approx(self.real.service[name])
        assert self.state.moment["waiting"][0] == len(self.real)


events = st.lists(
    st.tuples(st.just("joins"), st.integers(0, 3), st.integers(1, 50))
    | st.tuples(st.just("first_goes"))
    | st.tuples(st.just("one_ends"), st.integers(0, 40))
    | st.tuples(st.just("first_rests"))
    | st.tuples(st.just("stirs"), st.integers(0, 1)),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(events)
def test_the_simulated_queue_is_the_gateways(happened: list[tuple[Any, ...]]) -> None:
    both = Both()
    for what, *told in happened:
        getattr(both, what)(*told)
        both.check()
