"""Where a request goes, by what `decide()` has said of each candidate.

What it says of one (whether it passes, its score) depends on that candidate alone: on what is known
of it, on the prompt, and on how many requests it has. So it is remembered by these, and the
decision is what `decide()` makes of it: of those that pass the one with the lowest score, of equals
the first.
"""

import numpy as np

from orchestrator.simulate.kernel.compiled import inner
from orchestrator.simulate.tables import NOBODY, Scores, State

SATURATED, NO_CAPACITY, NEVER, UNKNOWN = -1, -2, -3, -4
"""Instead of an endpoint's number: all that fits is full; nothing fits now; no place, ever; it has
to be asked."""
NOT_ASKED = -np.inf
"""In the place of a score; not a number: it does not suit; infinity: it is full."""
PROMPT_STEPS = 2
"""Prompts are rounded up to so many lengths in each doubling."""
LOADS, PROMPTS = 1 << 22, 1 << 8


@inner
def prompt_step(prompt_tokens: float) -> int:
    return int(np.ceil(PROMPT_STEPS * np.log2(max(prompt_tokens, 1.0))))


@inner
def choose(state: State, scores: Scores, number: int) -> tuple[int, int]:
    """The endpoint's number or why there is none, and the variants that it was asked for: as the
    workload wants them, or smaller ones too. Where it has to be asked, `moment.asks` says for whom
    and which."""
    request = state.requests[number]
    found = NEVER
    for smaller in range(2 if state.groups[request.group].takes_smaller else 1):
        found = _lowest(state, scores, number, smaller)
        if found == UNKNOWN:
            state.moment[0].asks, state.moment[0].asks_smaller = number, smaller
        if found == UNKNOWN or found >= 0:
            return found, smaller
    return found, int(state.groups[request.group].takes_smaller)


@inner
def _lowest(state: State, scores: Scores, number: int, smaller: int) -> int:
    request = state.requests[number]
    places = state.places[smaller, request.group]
    if places[0] == NOBODY:
        return NEVER
    best, lowest, otherwise = NOBODY, np.inf, NO_CAPACITY
    for place in range(len(places)):
        if places[place] == NOBODY:
            break
        score = scores.get(_key(state, number, smaller, place), NOT_ASKED)
        if score == NOT_ASKED:
            return UNKNOWN
        if not np.isnan(score):
            otherwise = SATURATED
        if score < lowest:
            best, lowest = places[place], score
    return otherwise if best == NOBODY else int(best)


@inner
def _key(state: State, number: int, smaller: int, place: int) -> int:
    request = state.requests[number]
    e = state.endpoints[state.places[smaller, request.group, place]]
    known = state.known[smaller, request.group, place, int(e.inflight >= e.slots)]
    return int((known * PROMPTS + prompt_step(request.prompt_tokens)) * LOADS + e.inflight)


@inner
def remember(state: State, scores: Scores) -> None:
    """What was asked for has been answered."""
    moment = state.moment[0]
    number, smaller = moment.asks, moment.asks_smaller
    moment.asks = NOBODY
    for place in range(len(state.answers)):
        if state.places[smaller, state.requests[number].group, place] == NOBODY:
            return
        scores[_key(state, number, smaller, place)] = state.answers[place]


@inner
def expected_wait_s(
    state: State, scores: Scores, number: int, smaller: int, requests_ahead: int
) -> float:
    """Of one that finds everything full, as the gateway's `expected_wait` has it. Not a number
    where that was not measured."""
    places = state.places[smaller, state.requests[number].group]
    backlog, per_s = 0.0, 0.0
    for place in range(len(places)):
        if places[place] == NOBODY:
            break
        if not np.isnan(scores[_key(state, number, smaller, place)]):
            e = state.endpoints[places[place]]
            backlog += max(e.inflight - e.slots, 0.0)
            per_s += 1 / e.turn_s
    return (backlog + requests_ahead + 1) / per_s


def rounded_prompt(prompt_tokens: float) -> int:
    """As it is decided on."""
    step = np.ceil(PROMPT_STEPS * np.log2(max(prompt_tokens, 1.0)))
    return int(np.ceil(2 ** (step / PROMPT_STEPS)))
