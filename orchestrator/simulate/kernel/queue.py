"""Who waits in the gateway, in the order in which they go: as its `FairQueue` and `Admission` say.

A group is one workload's requests. The first of a group that can go nowhere rests until something
changes for it, and is looked at for the last time when its patience ends.
"""

import numpy as np

from orchestrator.policy.arrays import Ints
from orchestrator.simulate.kernel import service
from orchestrator.simulate.kernel.agenda import schedule
from orchestrator.simulate.kernel.compiled import compiled, inner
from orchestrator.simulate.tables import NOBODY, State


@inner
def join(state: State, number: int) -> None:
    """The newest of its group; where the queue is full the least important leaves it."""
    request, moment = state.requests[number], state.moment[0]
    g = state.groups[request.group]
    if not g.waiting:
        service.arrives(state, request.group)
    request.following, request.preceding = NOBODY, g.last
    if g.first == NOBODY:
        g.first = number
    else:
        state.requests[g.last].following = number
    g.last = number
    _count_in(state, number)
    if moment.waiting > moment.most_waiting:
        shed = _least_important(state)
        leave(state, shed)
        service.refuse(state, shed)


@inner
def join_first(state: State, number: int) -> None:
    """Before all of its group: it was sent before they came, and lost."""
    request = state.requests[number]
    g = state.groups[request.group]
    if not g.waiting:
        service.arrives(state, request.group)
    request.following, request.preceding = g.first, NOBODY
    if g.first == NOBODY:
        g.last = number
    else:
        state.requests[g.first].preceding = number
    g.first = number
    _count_in(state, number)
    wake(state, request.group)


@inner
def leave(state: State, number: int) -> None:
    request = state.requests[number]
    g = state.groups[request.group]
    if request.preceding == NOBODY:
        g.first = request.following
        schedule(state, request.group, np.inf)
        wake(state, request.group)
    else:
        state.requests[request.preceding].following = request.following
    if request.following == NOBODY:
        g.last = request.preceding
    else:
        state.requests[request.following].preceding = request.preceding
    g.waiting -= 1
    g.claimed -= request.claimed
    state.moment[0].waiting -= 1


@inner
def rest(state: State, group: int, until_s: float) -> None:
    """The first of a group cannot go now, and waits until then."""
    state.groups[group].rests = 1
    schedule(state, group, until_s)


@inner
def wake(state: State, group: int) -> None:
    state.groups[group].rests = 0
    state.moment[0].look = 1


@inner
def stir(state: State, endpoint: int) -> None:
    """Something changed there."""
    if state.moment[0].waiting:
        for group in range(len(state.groups)):
            if state.groups[group].rests and state.takes[group, endpoint]:
                wake(state, group)


@inner
def head(state: State) -> int:
    """The group whose first is looked at next: by priority, of equals who has had the least
    service, of those who came first. NOBODY: all rest."""
    best = NOBODY
    for group in range(len(state.groups)):
        g = state.groups[group]
        if g.first == NOBODY or g.rests:
            continue
        if best == NOBODY or _goes_before(state, group, best):
            best = group
    return best


@inner
def _goes_before(state: State, one: int, other: int) -> bool:
    g, o = state.groups[one], state.groups[other]
    if g.priority != o.priority:
        return bool(g.priority > o.priority)
    if g.service != o.service:
        return bool(g.service < o.service)
    return bool(state.requests[g.first].number < state.requests[o.first].number)


@inner
def ahead(state: State, group: int) -> int:
    """Requests that will likely be sent before one that joins now."""
    g, count = state.groups[group], state.groups[group].waiting
    for other in range(len(state.groups)):
        o = state.groups[other]
        if other == group or o.priority < g.priority or not state.meets[group, other]:
            continue
        count += o.waiting if o.priority > g.priority else min(o.waiting, g.waiting + 1)
    return int(count)


@inner
def _count_in(state: State, number: int) -> None:
    request, moment = state.requests[number], state.moment[0]
    g = state.groups[request.group]
    moment.joined += 1
    request.number = moment.joined
    request.claimed = service.expected_tokens(state, number)
    g.waiting += 1
    g.claimed += request.claimed
    moment.waiting += 1


@inner
def _least_important(state: State) -> int:
    """The newest of the lowest priority, and there of the group with the most service, what it
    waits for included."""
    worst = NOBODY
    for group in range(len(state.groups)):
        g = state.groups[group]
        if not g.waiting:
            continue
        if worst == NOBODY:
            worst = group
            continue
        w = state.groups[worst]
        if g.priority < w.priority or (
            g.priority == w.priority and g.service + g.claimed > w.service + w.claimed
        ):
            worst = group
    return int(state.groups[worst].last)


@compiled
def waiting_ages(state: State, group: int, histogram: Ints) -> None:
    """Counts how long those have waited already who wait in the gateway."""
    number = state.groups[group].first
    while number != NOBODY:
        request = state.requests[number]
        service.count(histogram, state.moment[0].clock_s - request.arrival_s)
        number = request.following
