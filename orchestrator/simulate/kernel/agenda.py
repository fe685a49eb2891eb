"""Who has an event when: a heap. First the groups, by when patience ends; then the replicas."""

import numpy as np

from orchestrator.simulate.kernel.compiled import inner
from orchestrator.simulate.tables import NOBODY, State


@inner
def schedule(state: State, who: int, when_s: float) -> None:
    """Its next event; at infinity: none."""
    agenda, moment = state.agenda, state.moment[0]
    i = agenda[who].position
    if np.isinf(when_s):
        if i == NOBODY:
            return
        last = moment.events - 1
        _swap(state, i, last)
        moment.events = last
        agenda[who].position = NOBODY
        if i < last:
            _settle(state, i)
        return
    if i == NOBODY:
        i = moment.events
        moment.events += 1
        agenda[i].who = who
        agenda[who].position = i
    agenda[i].when_s = when_s
    _settle(state, i)


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
