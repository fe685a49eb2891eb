"""What requests come to: latencies, objectives, and the service that their workloads have had.

Service is counted as the gateway's `FairQueue` does it.
"""

import numpy as np

from orchestrator.policy.arrays import Ints
from orchestrator.simulate.kernel.compiled import inner
from orchestrator.simulate.tables import (
    BINS,
    BINS_PER_DOUBLING,
    ITL,
    LOWEST_S,
    NOBODY,
    TTFT,
    State,
)

PROMPT_TOKEN, OUTPUT_TOKEN, NEWEST_SHARE = 1.0, 2.0, 0.125
"""As in `FairQueue`."""


@inner
def count(histogram: Ints, latency_s: float) -> None:
    number = 0
    if latency_s > LOWEST_S:
        number = min(BINS - 1, int(BINS_PER_DOUBLING * np.log2(latency_s / LOWEST_S)))
    histogram[number] += 1


@inner
def free(state: State, number: int) -> None:
    state.requests[number].following = state.moment[0].free
    state.moment[0].free = number


@inner
def refuse(state: State, number: int) -> None:
    """It gets no answer, or not the rest of one."""
    state.groups[state.requests[number].group].shed += 1
    free(state, number)


@inner
def begun(state: State, number: int, endpoint: int) -> None:
    """The first token that an endpoint gives."""
    request, now_s = state.requests[number], state.moment[0].clock_s
    if np.isnan(request.held_from_s):
        request.held_from_s = now_s
    if np.isnan(request.first_token_s):
        request.first_token_s = now_s
        ttft_s = now_s - request.arrival_s + state.endpoints[endpoint].overhead_s
        count(state.ttft[endpoint], ttft_s)


@inner
def served(state: State, number: int, endpoint: int) -> None:
    request, now_s = state.requests[number], state.moment[0].clock_s
    g = state.groups[request.group]
    _closed(state, number, endpoint)
    ended(state, number, request.prompt_tokens, request.output_tokens)
    if now_s - request.arrival_s > g.total_s:
        refuse(state, number)
        return
    ttft_s = request.first_token_s - request.arrival_s + state.endpoints[endpoint].overhead_s
    count(state.latency[TTFT, request.group], ttft_s)
    is_late = ttft_s > g.ttft_slo_s
    g.late_ttft += is_late
    tokens = request.answered + request.output_tokens
    if tokens > 1:
        itl_s = (now_s - request.first_token_s) / (tokens - 1)
        is_slow = itl_s > g.itl_slo_s
        count(state.latency[ITL, request.group], itl_s)
        g.late_itl += is_slow
        is_late |= is_slow
    g.in_slo += not is_late
    g.served += 1
    g.output_tokens += tokens
    free(state, number)


@inner
def broken_off(state: State, number: int, endpoint: int, said: float) -> None:
    """What is left of it is a request of its own: its prompt ends in what was said."""
    request = state.requests[number]
    _closed(state, number, endpoint)
    ended(state, number, request.prompt_tokens, said)
    request.answered += said
    request.prompt_tokens += said
    request.output_tokens -= said
    request.said = 0.0
    request.held_from_s = np.nan


@inner
def _closed(state: State, number: int, endpoint: int) -> None:
    held_from_s, e = state.requests[number].held_from_s, state.endpoints[endpoint]
    e.inflight -= 1
    if not np.isnan(held_from_s):
        e.held_s += state.moment[0].clock_s - held_from_s
        e.held += 1


@inner
def expected_tokens(state: State, number: int) -> float:
    request = state.requests[number]
    mean = state.groups[request.group].mean_output
    return float(PROMPT_TOKEN * request.prompt_tokens + OUTPUT_TOKEN * mean)


@inner
def arrives(state: State, group: int) -> None:
    """Whoever comes back from idleness has saved up nothing: it starts where the others are."""
    g, least = state.groups[group], np.inf
    if state.moment[0].waiting:
        for other in range(len(state.groups)):
            o = state.groups[other]
            if o.waiting and o.priority == g.priority:
                least = min(least, o.service)
    if np.isinf(least):
        last = state.went_last[g.rank]
        if last == NOBODY:
            return
        least = state.groups[last].service
    g.service = max(g.service, least)


@inner
def goes(state: State, number: int) -> None:
    request = state.requests[number]
    request.charged = expected_tokens(state, number)
    g = state.groups[request.group]
    g.service += request.charged
    state.went_last[g.rank] = request.group


@inner
def ended(state: State, number: int, prompt_tokens: float, output_tokens: float) -> None:
    """What it turned out to be counts in the place of what was expected."""
    request = state.requests[number]
    g = state.groups[request.group]
    used = PROMPT_TOKEN * prompt_tokens + OUTPUT_TOKEN * output_tokens
    g.service += used - request.charged
    request.charged = 0.0
    if output_tokens:
        if not g.has_mean:
            g.mean_output, g.has_mean = output_tokens, 1
        g.mean_output += NEWEST_SHARE * (output_tokens - g.mean_output)
