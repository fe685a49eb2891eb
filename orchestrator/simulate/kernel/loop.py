"""One event after the other: arrivals, ends of steps and of patience."""

import numpy as np

from orchestrator.policy.arrays import Floats, Ints
from orchestrator.simulate.kernel import queue, replica, service
from orchestrator.simulate.kernel.choice import (
    NO_CAPACITY,
    SATURATED,
    UNKNOWN,
    choose,
    expected_wait_s,
    remember,
)
from orchestrator.simulate.kernel.compiled import compiled, inner
from orchestrator.simulate.tables import GONE, NOBODY, READY, Scores, State

DONE, UNDECIDED, FULL, SPEED_UNKNOWN = 0, 1, 2, 3
"""Why the loop came back: the time is reached; `moment.asks` is to be asked about; there is no room
for another request; one would go to `moment.chosen`, whose speed is not known."""


@inner
def _send(state: State, number: int, endpoint: int) -> None:
    """To the replica with the fewest requests."""
    e, request = state.endpoints[endpoint], state.requests[number]
    state.sent[request.group, endpoint] += 1
    if request.prompt_tokens + request.output_tokens > e.context_tokens:
        # The engine refuses it.
        service.refuse(state, number)
        return
    service.goes(state, number)
    e.inflight += 1
    best, fewest = NOBODY, 0
    for one in range(len(state.replicas)):
        r = state.replicas[one]
        if r.endpoint == endpoint and r.state == READY:
            open_there = replica.load(state, one)
            if best == NOBODY or open_there < fewest:
                best, fewest = one, open_there
    replica.take(state, best, number)


@inner
def _has_speed(state: State, endpoint: int) -> bool:
    state.moment[0].chosen = endpoint
    return bool(state.endpoints[endpoint].has_speed)


@inner
def _patience_s(state: State, number: int, found: int) -> float:
    g = state.groups[state.requests[number].group]
    if found >= 0 or found == SATURATED:
        return float(g.slot_patience_s)
    return float(g.replica_patience_s) if found == NO_CAPACITY else 0.0


@inner
def _place(state: State, scores: Scores) -> int:
    """Who has just arrived goes, waits or is refused."""
    moment = state.moment[0]
    number = moment.arrived
    request = state.requests[number]
    found, smaller = choose(state, scores, number)
    if found == UNKNOWN:
        return UNDECIDED
    left_s = _patience_s(state, number, found)
    if found >= 0 and (not moment.waiting or left_s <= 0):
        if not _has_speed(state, found):
            return SPEED_UNKNOWN
        service.arrives(state, request.group)
        _send(state, number, found)
    else:
        if found == SATURATED:
            requests_ahead = queue.ahead(state, request.group)
            wait_s = expected_wait_s(state, scores, number, smaller, requests_ahead)
            # Not a number compares as false.
            if wait_s > left_s:
                left_s = 0.0
        if left_s > 0:
            queue.join(state, number)
            if state.groups[request.group].first == number:
                queue.wake(state, request.group)
        else:
            service.refuse(state, number)
    moment.arrived = NOBODY
    return DONE


@inner
def _serve_queue(state: State, scores: Scores) -> int:
    """Until all who wait rest."""
    moment = state.moment[0]
    while True:
        group = queue.head(state)
        if group == NOBODY:
            moment.look = 0
            return DONE
        number = state.groups[group].first
        found, _ = choose(state, scores, number)
        if found == UNKNOWN:
            return UNDECIDED
        until_s = state.requests[number].arrival_s + _patience_s(state, number, found)
        if found >= 0:
            if not _has_speed(state, found):
                return SPEED_UNKNOWN
            queue.leave(state, number)
            _send(state, number, found)
        elif until_s <= moment.clock_s:
            queue.leave(state, number)
            service.refuse(state, number)
        else:
            queue.rest(state, group, until_s)


@compiled
def look_through(state: State) -> None:
    """All queues, at the next chance."""
    for group in range(len(state.groups)):
        state.groups[group].rests = 0
    state.moment[0].look = 1


@inner
def _arrive(
    state: State, at_s: float, prompt_tokens: float, output_tokens: float, group: int
) -> None:
    moment = state.moment[0]
    number = moment.free
    request = state.requests[number]
    moment.free = request.following
    moment.clock_s = at_s
    request.group, request.arrival_s = group, at_s
    request.prompt_tokens, request.output_tokens = prompt_tokens, output_tokens
    request.first_token_s = request.held_from_s = np.nan
    request.answered = request.said = request.charged = 0.0
    state.groups[group].arrived += 1
    state.groups[group].arrived_tokens += prompt_tokens
    moment.arrived = number


@inner
def _happen(state: State) -> None:
    """What is next on the agenda."""
    moment, who = state.moment[0], state.agenda[0].who
    moment.clock_s = state.agenda[0].when_s
    if who < len(state.groups):
        # Its first is looked at for the last time.
        queue.wake(state, who)
        return
    one = who - len(state.groups)
    endpoint = state.replicas[one].endpoint
    before = state.endpoints[endpoint].inflight
    replica.end_steps(state, one)
    if state.endpoints[endpoint].inflight < before:
        queue.stir(state, endpoint)


@compiled
def advance(
    state: State,
    scores: Scores,
    arrival_s: Floats,
    prompt_tokens: Floats,
    output_tokens: Floats,
    group: Ints,
    position: int,
    until_s: float,
) -> tuple[int, int]:
    """Up to a time, with the arrivals from a position on. The position that was reached, and why
    it came back."""
    moment = state.moment[0]
    if moment.asks != NOBODY:
        remember(state, scores)
    while True:
        if moment.arrived != NOBODY:
            why = _place(state, scores)
            if why != DONE:
                return position, why
        if moment.look:
            why = _serve_queue(state, scores)
            if why != DONE:
                return position, why
        coming_s = arrival_s[position] if position < len(arrival_s) else np.inf
        event_s = state.agenda[0].when_s if moment.events else np.inf
        if min(coming_s, event_s) >= until_s:
            moment.clock_s = until_s
            return position, DONE
        if coming_s >= event_s:
            _happen(state)
        elif moment.free == NOBODY:
            return position, FULL
        else:
            _arrive(
                state, coming_s, prompt_tokens[position], output_tokens[position], group[position]
            )
            position += 1


@compiled
def lose(state: State, one: int) -> None:
    """A replica is gone. What it ran is linked from `moment.lost` on."""
    replica.stop(state, one)
    state.replicas[one].state = GONE


@compiled
def go_on(state: State, number: int, found: int) -> None:
    """What becomes of a request that was lost: whose answer has begun waits for nobody."""
    request, moment = state.requests[number], state.moment[0]
    has_begun = not np.isnan(request.first_token_s)
    patience_s = state.groups[request.group].slot_patience_s
    if found >= 0 and (has_begun or not moment.waiting):
        _send(state, number, found)
    elif (
        not has_begun
        and (found >= 0 or found == SATURATED)
        and request.arrival_s + patience_s > moment.clock_s
    ):
        queue.join_first(state, number)
    else:
        service.refuse(state, number)
