"""A replica as vLLM (V1) schedules it, by steps of its engine.

In a step every sequence that decodes gains a token; what is left of the step's token budget goes to
prompts, in the order in which they came, which are read in pieces where they are longer. Who is
read whole says its first token at the end of that step. A request is admitted when all of it that
is known fits in the KV cache; it grows from there, and when the cache is full, whoever was admitted
last makes way and is read anew.

A step that reads is an event. Steps that only decode are one event together, until an answer ends
or the cache is full; who comes meanwhile waits for the end of the step that runs.
"""

import numpy as np

from orchestrator.simulate.kernel import service
from orchestrator.simulate.kernel.agenda import schedule
from orchestrator.simulate.kernel.compiled import inner
from orchestrator.simulate.tables import NOBODY, State

ON_TIME = 1e-9
"""Of a step: what comes so little after its beginning came with it, by the clock's rounding."""


@inner
def load(state: State, replica: int) -> int:
    r = state.replicas[replica]
    return int(r.decoding + r.reading_count + r.waiting_count)


@inner
def take(state: State, replica: int, number: int) -> None:
    """One more request, at the end of those that wait there."""
    r, now_s = state.replicas[replica], state.moment[0].clock_s
    state.requests[number].following = NOBODY
    if r.waiting == NOBODY:
        r.waiting = number
    else:
        state.requests[r.waiting_last].following = number
    r.waiting_last = number
    r.waiting_count += 1
    if not r.steps:
        _begin(state, replica)
        return
    only_decodes, comes_next = r.reading == NOBODY, r.waiting == number
    if only_decodes and comes_next and r.decoding < state.endpoints[r.endpoint].sequences:
        begun = np.ceil((now_s - r.at_s) / r.step_s - ON_TIME)
        r.steps = min(r.steps, max(begun, 1.0))
        _schedule_end(state, replica)


@inner
def end_steps(state: State, replica: int) -> None:
    """Of those that were begun, at their end; the next ones begin."""
    r = state.replicas[replica]
    r.progress += r.steps
    r.kv_tokens += r.decoding * r.steps
    state.endpoints[r.endpoint].busy_s += r.steps * r.step_s
    while r.reading != NOBODY and not state.requests[r.reading].unread_tokens:
        number = r.reading
        request = state.requests[number]
        r.reading = request.following
        r.reading_count -= 1
        service.begun(state, number, r.endpoint)
        request.said_at = r.progress
        _push_end(state, replica, r.progress + request.output_tokens - request.said - 1, number)
    while r.decoding and state.ends_at[replica, 0] <= r.progress:
        number = _remove_end(state, replica, 0)
        request = state.requests[number]
        r.kv_tokens -= request.prompt_tokens + request.output_tokens - 1
        service.served(state, number, r.endpoint)
    _begin(state, replica)


@inner
def stop(state: State, replica: int) -> None:
    """In the middle of whatever it does: it runs nothing any more. Its requests are linked before
    those that were lost with others."""
    r, moment = state.replicas[replica], state.moment[0]
    done = 0.0
    if r.steps:
        passed_s = moment.clock_s - r.at_s
        done = min(max(np.floor(passed_s / r.step_s + ON_TIME), 0.0), r.steps)
        state.endpoints[r.endpoint].busy_s += passed_s
    for first in (r.waiting, r.reading):
        number = first
        while number != NOBODY:
            following = state.requests[number].following
            _lost(state, replica, number, state.requests[number].said)
            number = following
    for i in range(r.decoding):
        request = state.requests[state.ends[replica, i]]
        said = request.said + 1 + r.progress + done - request.said_at
        _lost(state, replica, state.ends[replica, i], min(said, request.output_tokens - 1))
    r.reading = r.waiting = NOBODY
    r.decoding = r.reading_count = r.waiting_count = 0
    r.kv_tokens = r.steps = 0.0
    schedule(state, _who(state, replica), np.inf)


@inner
def _lost(state: State, replica: int, number: int, said: float) -> None:
    endpoint, moment = state.replicas[replica].endpoint, state.moment[0]
    service.broken_off(state, number, endpoint, said)
    request = state.requests[number]
    request.lost_at = endpoint
    request.following = moment.lost
    moment.lost = number


@inner
def _begin(state: State, replica: int) -> None:
    """What follows: a step that reads, steps that do not, or nothing."""
    r = state.replicas[replica]
    e = state.endpoints[r.endpoint]
    r.at_s = state.moment[0].clock_s
    had_room = _make_room(state, replica)
    read_tokens = _read(state, replica) if had_room else 0.0
    r.kv_tokens += read_tokens
    r.steps = 1.0
    r.step_s = read_tokens * e.read_s
    if r.decoding:
        r.step_s += e.step_s + e.step_more_s * (r.decoding - 1)
    if not read_tokens:
        if not r.decoding:
            r.steps = 0.0
            schedule(state, _who(state, replica), np.inf)
            return
        # Who made way may find room in the step after this one.
        if had_room:
            r.steps = state.ends_at[replica, 0] - r.progress
            if r.decoding > 1:
                until_full = np.floor((e.kv_tokens - r.kv_tokens) / r.decoding)
                r.steps = min(r.steps, until_full)
    _schedule_end(state, replica)


@inner
def _make_room(state: State, replica: int) -> bool:
    """For a token of each sequence that decodes and the next piece of a prompt that is in part
    read; whether nobody had to make way. One alone always has room."""
    r = state.replicas[replica]
    e = state.endpoints[r.endpoint]
    had_room = True
    while r.decoding + r.reading_count > 1:
        needed = float(r.decoding)
        if r.reading != NOBODY:
            piece = min(e.batch_tokens - r.decoding, state.requests[r.reading].unread_tokens)
            needed += max(piece, 0.0)
        if r.kv_tokens + needed <= e.kv_tokens:
            break
        had_room = False
        _preempt_latest(state, replica)
    return had_room


@inner
def _preempt_latest(state: State, replica: int) -> None:
    """It is the next to be admitted, and read anew with what it has said."""
    r = state.replicas[replica]
    # Who is in part read was admitted after all that decode.
    number = r.reading
    if number != NOBODY:
        request = state.requests[number]
        r.kv_tokens -= request.prompt_tokens + request.said - request.unread_tokens
        r.reading = NOBODY
        r.reading_count = 0
    else:
        latest = 0
        for i in range(1, r.decoding):
            admitted = state.requests[state.ends[replica, i]].admitted
            if admitted > state.requests[state.ends[replica, latest]].admitted:
                latest = i
        number = _remove_end(state, replica, latest)
        request = state.requests[number]
        decoded = r.progress - request.said_at
        r.kv_tokens -= request.prompt_tokens + request.said + decoded
        request.said += 1 + decoded
    request.following = r.waiting
    if r.waiting == NOBODY:
        r.waiting_last = number
    r.waiting = number
    r.waiting_count += 1


@inner
def _read(state: State, replica: int) -> float:
    """Tokens of prompts that the step reads."""
    r = state.replicas[replica]
    e = state.endpoints[r.endpoint]
    budget = e.batch_tokens - r.decoding
    free = e.kv_tokens - r.kv_tokens - r.decoding
    read_tokens = 0.0
    if r.reading != NOBODY:
        request = state.requests[r.reading]
        piece = max(min(request.unread_tokens, budget), 0.0)
        request.unread_tokens -= piece
        read_tokens, budget, free = piece, budget - piece, free - piece
    while r.waiting != NOBODY and budget > 0:
        running = r.decoding + r.reading_count
        number = r.waiting
        request = state.requests[number]
        known = request.prompt_tokens + request.said
        if running >= e.sequences or (running and known > free):
            break
        r.waiting = request.following
        r.waiting_count -= 1
        r.admissions += 1
        request.admitted = r.admissions
        piece = min(known, budget)
        request.unread_tokens = known - piece
        read_tokens, budget, free = read_tokens + piece, budget - piece, free - piece
        request.following = NOBODY
        if r.reading == NOBODY:
            r.reading = number
        else:
            state.requests[r.reading_last].following = number
        r.reading_last = number
        r.reading_count += 1
    return read_tokens


@inner
def _schedule_end(state: State, replica: int) -> None:
    r = state.replicas[replica]
    end_s = max(r.at_s + r.steps * r.step_s, state.moment[0].clock_s)
    schedule(state, _who(state, replica), end_s)


@inner
def _who(state: State, replica: int) -> int:
    """It is on the agenda."""
    return len(state.groups) + replica


@inner
def _push_end(state: State, replica: int, ends_at: float, number: int) -> None:
    i = state.replicas[replica].decoding
    state.replicas[replica].decoding += 1
    _lift(state, replica, i, ends_at, number)


@inner
def _remove_end(state: State, replica: int, i: int) -> int:
    """Whose it was."""
    at, whose = state.ends_at[replica], state.ends[replica]
    removed = whose[i]
    size = state.replicas[replica].decoding - 1
    state.replicas[replica].decoding = size
    if i == size:
        return int(removed)
    ends_at, number = at[size], whose[size]
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and at[child + 1] < at[child]:
            child += 1
        if at[child] >= ends_at:
            break
        at[i], whose[i] = at[child], whose[child]
        i = child
    _lift(state, replica, i, ends_at, number)
    return int(removed)


@inner
def _lift(state: State, replica: int, i: int, ends_at: float, number: int) -> None:
    """From a place in the heap to where it belongs above."""
    at, whose = state.ends_at[replica], state.ends[replica]
    while i and at[(i - 1) // 2] > ends_at:
        at[i], whose[i] = at[(i - 1) // 2], whose[(i - 1) // 2]
        i = (i - 1) // 2
    at[i], whose[i] = ends_at, number
