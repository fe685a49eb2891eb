"""What happens between two ticks: requests arrive, wait, are decided, read, answered.

Compiled; it stops where a decision is wanted that is not remembered. A replica is a fluid: all its
sequences go on at one rate, set by its batch and by the prompt that it reads, so that an event is a
prompt that has been read or an answer that ends, never a token.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit  # type: ignore[attr-defined]

from orchestrator.policy.arrays import Floats, Ints
from orchestrator.simulate.tables import (
    BINS,
    BINS_PER_DOUBLING,
    GONE,
    ITL,
    LOWEST_S,
    NOBODY,
    READY,
    TTFT,
    Decisions,
    State,
)

DONE, UNDECIDED, FULL = 0, 1, 2
"""Why the kernel came back: the time is reached, a decision is wanted, there is no room for another
request."""
SATURATED, NO_CAPACITY, NEVER = -1, -2, -3
"""Decisions that are no endpoint's number: all that fits is full, nothing is ready, no place."""
ROUNDING_TOKENS = 1e-3
"""What is left of a prompt or an answer when its end has come, by the clock's rounding."""

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """For callers from Python; kept on disk beside this file."""
    kept: Function = njit(cache=True)(function)
    return kept


def inner(function: Function) -> Function:
    """For compiled callers alone."""
    kept: Function = njit(cache=True, no_cpython_wrapper=True)(function)
    return kept


@inner
def _load_step(load: int, slots: int) -> int:
    """The load as decisions see it: exact up to 16 slots, then in sixteenths of them."""
    return load if slots <= 16 else load * 16 // slots


@compiled
def rounded_loads(state: State) -> Ints:
    """By endpoint, as decisions see them."""
    loads = np.zeros(len(state.endpoints), np.int64)
    for number in range(len(state.endpoints)):
        endpoint = state.endpoints[number]
        step = _load_step(endpoint.inflight, endpoint.slots)
        loads[number] = step if endpoint.slots <= 16 else step * endpoint.slots // 16
    return loads


@compiled
def prompt_step(prompt_tokens: float) -> int:
    """Powers of two."""
    return int(np.ceil(np.log2(max(prompt_tokens, 1.0))))


@inner
def _decision_key(state: State, group: int) -> int:
    """Of the first request that waits in the group. (FNV-1a over what its decision depends on.)"""
    prime = np.uint64(1099511628211)
    request = state.requests[state.groups[group].first]
    key = np.uint64(14695981039346656037) ^ np.uint64(state.groups[group].situation)
    key = key * prime ^ np.uint64(prompt_step(request.prompt_tokens))
    for place in range(state.places.shape[1]):
        number = state.places[group, place]
        if number == NOBODY:
            break
        endpoint = state.endpoints[number]
        key = key * prime ^ np.uint64(_load_step(endpoint.inflight, endpoint.slots) + 1)
        key ^= key >> np.uint64(29)
    return int(np.int64(key >> np.uint64(1)))


@inner
def _bin(latency_s: float) -> int:
    if latency_s <= LOWEST_S:
        return 0
    return min(BINS - 1, int(BINS_PER_DOUBLING * np.log2(latency_s / LOWEST_S)))


@inner
def _swap(state: State, i: int, j: int) -> None:
    a = state.agenda
    a[i].when_s, a[j].when_s = a[j].when_s, a[i].when_s
    a[i].who, a[j].who = a[j].who, a[i].who
    a[a[i].who].position, a[a[j].who].position = i, j


@inner
def _settle(state: State, i: int) -> None:
    agenda, size = state.agenda, state.moment[0].events
    while i and agenda[i].when_s < agenda[(i - 1) // 2].when_s:
        _swap(state, i, (i - 1) // 2)
        i = (i - 1) // 2
    while True:
        least = i
        for child in (2 * i + 1, 2 * i + 2):
            if child < size and agenda[child].when_s < agenda[least].when_s:
                least = child
        if least == i:
            return
        _swap(state, i, least)
        i = least


@inner
def _schedule(state: State, replica: int, when_s: float) -> None:
    """Its next event; at infinity: none."""
    agenda, moment = state.agenda, state.moment[0]
    i = agenda[replica].position
    if np.isinf(when_s):
        if i == NOBODY:
            return
        last = moment.events - 1
        _swap(state, i, last)
        moment.events = last
        agenda[replica].position = NOBODY
        if i < last:
            _settle(state, i)
        return
    if i == NOBODY:
        i = moment.events
        moment.events += 1
        agenda[i].who = replica
        agenda[replica].position = i
    agenda[i].when_s = when_s
    _settle(state, i)


@inner
def _rates(state: State, replica: int) -> tuple[float, float]:
    """Tokens a second that each sequence decodes, and that are read of prompts.

    A step takes the batch's time, and that of the chunk of a prompt that it reads beside.
    """
    r = state.replicas[replica]
    e = state.endpoints[r.endpoint]
    if r.reading != NOBODY and not r.decoding:
        return 0.0, 1 / e.read_s
    step_s = e.step_s + e.step_more_s * (r.decoding - 1)
    if r.reading == NOBODY:
        return 1 / step_s, 0.0
    step_s += e.chunk_tokens * e.read_s
    return 1 / step_s, e.chunk_tokens / step_s


@inner
def _work(state: State, replica: int, until_s: float) -> None:
    """Brings a replica up to a time, up to which it has no event."""
    r = state.replicas[replica]
    passed_s = until_s - r.at_s
    if passed_s > 0 and (r.decoding or r.reading != NOBODY):
        decoded, read = _rates(state, replica)
        r.progress += decoded * passed_s
        r.unread_tokens -= read * passed_s
        r.busy_s += passed_s
    r.at_s = until_s


@inner
def _look_ahead(state: State, replica: int) -> None:
    """Schedules the next event of a replica that is worked out."""
    r = state.replicas[replica]
    when_s = np.inf
    if r.decoding or r.reading != NOBODY:
        decoded, read = _rates(state, replica)
        if r.reading != NOBODY:
            when_s = r.at_s + max(r.unread_tokens, 0.0) / read
        if r.decoding:
            left = max(state.ends_at[replica, 0] - r.progress, 0.0)
            when_s = min(when_s, r.at_s + left / decoded)
    _schedule(state, replica, when_s)


@inner
def _push_end(state: State, replica: int, ends_at: float, request: int) -> None:
    at, whose = state.ends_at[replica], state.ends[replica]
    i = state.replicas[replica].decoding
    state.replicas[replica].decoding += 1
    while i and at[(i - 1) // 2] > ends_at:
        at[i], whose[i] = at[(i - 1) // 2], whose[(i - 1) // 2]
        i = (i - 1) // 2
    at[i], whose[i] = ends_at, request


@inner
def _pop_end(state: State, replica: int) -> int:
    at, whose = state.ends_at[replica], state.ends[replica]
    request = whose[0]
    size = state.replicas[replica].decoding - 1
    state.replicas[replica].decoding = size
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and at[child + 1] < at[child]:
            child += 1
        if at[child] >= at[size]:
            break
        at[i], whose[i] = at[child], whose[child]
        i = child
    at[i], whose[i] = at[size], whose[size]
    return int(request)


@inner
def _admit(state: State, replica: int) -> None:
    """Those who wait there begin, in their order, while sequences and cache have room."""
    r = state.replicas[replica]
    e = state.endpoints[r.endpoint]
    while r.waiting != NOBODY:
        number = r.waiting
        request = state.requests[number]
        running = r.decoding + r.reading_count
        needed = request.prompt_tokens + request.output_tokens
        if running >= e.sequences or (running and r.kv_tokens + needed > e.kv_tokens):
            return
        r.waiting = request.following
        r.waiting_count -= 1
        r.kv_tokens += needed
        request.following = NOBODY
        if r.reading == NOBODY:
            r.reading = number
            r.unread_tokens = request.prompt_tokens
        else:
            state.requests[r.reading_last].following = number
        r.reading_last = number
        r.reading_count += 1


@inner
def _send(state: State, number: int, endpoint: int, now_s: float) -> None:
    """To the replica with the fewest requests."""
    best, fewest = NOBODY, np.int64(1 << 60)
    for replica in range(len(state.replicas)):
        r = state.replicas[replica]
        if r.endpoint == endpoint and r.state == READY:
            load = r.decoding + r.reading_count + r.waiting_count
            if load < fewest:
                best, fewest = replica, load
    _work(state, best, now_s)
    r = state.replicas[best]
    request = state.requests[number]
    request.following = NOBODY
    if r.waiting == NOBODY:
        r.waiting = number
    else:
        state.requests[r.waiting_last].following = number
    r.waiting_last = number
    r.waiting_count += 1
    state.endpoints[endpoint].inflight += 1
    state.sent[request.group, endpoint] += 1
    _admit(state, best)
    _look_ahead(state, best)


@inner
def _free(state: State, number: int) -> None:
    state.requests[number].following = state.moment[0].free
    state.moment[0].free = number


@inner
def _first_token(state: State, replica: int, now_s: float) -> None:
    r = state.replicas[replica]
    number = r.reading
    request = state.requests[number]
    r.reading = request.following
    r.reading_count -= 1
    if r.reading != NOBODY:
        r.unread_tokens = state.requests[r.reading].prompt_tokens
    if np.isnan(request.first_token_s):
        request.first_token_s = now_s
        ttft_s = now_s - request.arrival_s
        state.latency[TTFT, request.group, _bin(ttft_s)] += 1
        state.ttft[r.endpoint, _bin(ttft_s)] += 1
    request.said_at = r.progress
    _push_end(state, replica, r.progress + request.output_tokens - 1, number)


@inner
def _last_token(state: State, replica: int, now_s: float) -> None:
    number = _pop_end(state, replica)
    request, r = state.requests[number], state.replicas[replica]
    e, g = state.endpoints[r.endpoint], state.groups[request.group]
    r.kv_tokens -= request.prompt_tokens + request.output_tokens
    decoded_s = now_s - request.first_token_s
    e.inflight -= 1
    e.held_s += decoded_s
    e.held += 1
    tokens = request.answered + request.output_tokens
    is_late = request.first_token_s - request.arrival_s > g.ttft_slo_s
    g.late_ttft += is_late
    if tokens > 1:
        itl_s = decoded_s / (tokens - 1)
        is_slow = itl_s > g.itl_slo_s
        state.latency[ITL, request.group, _bin(itl_s)] += 1
        g.late_itl += is_slow
        is_late |= is_slow
    g.in_slo += not is_late
    g.served += 1
    g.output_tokens += tokens
    _free(state, number)


@inner
def _enqueue(state: State, group: int, number: int) -> None:
    g = state.groups[group]
    state.requests[number].following = NOBODY
    if g.first == NOBODY:
        g.first = number
    else:
        state.requests[g.last].following = number
    g.last = number
    g.waiting += 1


@inner
def _dequeue(state: State, group: int) -> int:
    g = state.groups[group]
    number = g.first
    g.first = state.requests[number].following
    g.waiting -= 1
    return int(number)


@inner
def _next_group(state: State) -> int:
    """Whose turn it is: by priority, of equals who has had the fewest tokens."""
    best = NOBODY
    for group in range(len(state.groups)):
        g = state.groups[group]
        if g.first == NOBODY or g.refused:
            continue
        if best == NOBODY:
            best = group
            continue
        b = state.groups[best]
        if g.priority > b.priority or (g.priority == b.priority and g.tokens < b.tokens):
            best = group
    return best


@inner
def _serve_queues(state: State, decisions: Decisions) -> tuple[int, int]:
    """The group whose first request waits for a decision that is not remembered, or NOBODY; and the
    key under which to remember it."""
    now_s = state.moment[0].clock_s
    while True:
        group = _next_group(state)
        if group == NOBODY:
            state.moment[0].look = 0
            return NOBODY, 0
        key = _decision_key(state, group)
        if key not in decisions:
            return group, key
        decision = decisions[key]
        g = state.groups[group]
        request = state.requests[g.first]
        if decision >= 0:
            g.tokens += request.prompt_tokens + request.output_tokens
            _send(state, _dequeue(state, group), decision, now_s)
            continue
        patience_s = 0.0
        if decision == SATURATED:
            patience_s = g.slot_patience_s
        elif decision == NO_CAPACITY:
            patience_s = g.replica_patience_s
        if not np.isnan(request.first_token_s):
            # One that was answered in part is owed the rest.
            patience_s = g.total_s
        if now_s - request.arrival_s >= patience_s:
            g.shed += 1
            _free(state, _dequeue(state, group))
        else:
            g.refused = 1


@compiled
def look_through(state: State) -> None:
    """All queues, at the next chance."""
    for group in range(len(state.groups)):
        state.groups[group].refused = 0
    state.moment[0].look = 1


@inner
def _arrive(
    state: State, at_s: float, prompt_tokens: float, output_tokens: float, group: int
) -> None:
    moment, g = state.moment[0], state.groups[group]
    number = moment.free
    request = state.requests[number]
    moment.free = request.following
    moment.clock_s = at_s
    request.group, request.arrival_s = group, at_s
    request.prompt_tokens, request.output_tokens = prompt_tokens, output_tokens
    request.first_token_s, request.answered = np.nan, 0.0
    g.arrived += 1
    g.arrived_tokens += prompt_tokens
    if g.first == NOBODY:
        # By this nobody else can be served.
        g.refused, moment.look = 0, 1
    _enqueue(state, group, number)


@inner
def _happen(state: State, replica: int) -> None:
    """The next event of a replica."""
    now_s = state.agenda[0].when_s
    state.moment[0].clock_s = now_s
    _work(state, replica, now_s)
    r = state.replicas[replica]
    if r.decoding and state.ends_at[replica, 0] - r.progress <= ROUNDING_TOKENS:
        _last_token(state, replica, now_s)
        _admit(state, replica)
        look_through(state)
    elif r.reading != NOBODY and r.unread_tokens <= ROUNDING_TOKENS:
        _first_token(state, replica, now_s)
        _admit(state, replica)
    _look_ahead(state, replica)


@compiled
def advance(
    state: State,
    decisions: Decisions,
    arrival_s: Floats,
    prompt_tokens: Floats,
    output_tokens: Floats,
    group: Ints,
    position: int,
    until_s: float,
) -> tuple[int, int, int, int]:
    """Up to a time, with the arrivals from a position on. The position that was reached, why it
    came back, and what a decision is wanted for: the group and the key to remember it by."""
    moment = state.moment[0]
    while True:
        if moment.look:
            undecided, key = _serve_queues(state, decisions)
            if undecided != NOBODY:
                return position, UNDECIDED, undecided, key
        coming_s = arrival_s[position] if position < len(arrival_s) else np.inf
        event_s = state.agenda[0].when_s if moment.events else np.inf
        if min(coming_s, event_s) >= until_s:
            moment.clock_s = until_s
            return position, DONE, NOBODY, 0
        if coming_s >= event_s:
            _happen(state, state.agenda[0].who)
        elif moment.free == NOBODY:
            return position, FULL, NOBODY, 0
        else:
            _arrive(
                state, coming_s, prompt_tokens[position], output_tokens[position], group[position]
            )
            position += 1


@inner
def _requeue(state: State, number: int) -> None:
    g = state.groups[state.requests[number].group]
    state.requests[number].following = g.first
    if g.first == NOBODY:
        g.last = number
    g.first = number
    g.waiting += 1


@compiled
def lose(state: State, replica: int) -> None:
    """A replica is gone. What it ran goes on elsewhere from what it had said, before what waits."""
    r = state.replicas[replica]
    _work(state, replica, state.moment[0].clock_s)
    left = r.decoding + r.reading_count + r.waiting_count
    state.endpoints[r.endpoint].inflight -= left
    for first in (r.waiting, r.reading):
        number = first
        while number != NOBODY:
            following = state.requests[number].following
            _requeue(state, number)
            number = following
    # Last, so that they come first: they are owed the rest.
    for i in range(r.decoding):
        number = state.ends[replica, i]
        request = state.requests[number]
        said = 1 + np.floor(r.progress - request.said_at)
        said = min(said, request.output_tokens - 1)
        request.answered += said
        request.prompt_tokens += said
        request.output_tokens -= said
        _requeue(state, number)
    r.reading = r.waiting = NOBODY
    r.decoding = r.reading_count = r.waiting_count = 0
    r.kv_tokens = 0.0
    r.state = GONE
    _schedule(state, replica, np.inf)


@compiled
def waiting_ages(state: State, group: int, histogram: Ints) -> None:
    """Counts how long those have waited already who wait in the gateway."""
    number = state.groups[group].first
    while number != NOBODY:
        request = state.requests[number]
        histogram[_bin(state.moment[0].clock_s - request.arrival_s)] += 1
        number = request.following
