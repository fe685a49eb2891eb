"""The state of a simulation, in structured arrays that the kernel goes through."""

from collections.abc import MutableMapping
from typing import Any, NamedTuple

import numpy as np
from numba import types  # type: ignore[attr-defined]
from numba.typed import Dict

from orchestrator.policy.arrays import Bools, Floats, Ints

NOBODY = -1
GONE, READY, DRAINING = 0, 1, 2
TTFT, ITL = 0, 1
BINS = 256
LOWEST_S = 1e-4
BINS_PER_DOUBLING = 8
"""Latencies are counted in bins of 9 %, from 0.1 ms."""

Table = Any
"""A structured array; what its fields mean stands at its dtype."""
Scores = MutableMapping[int, float]
"""What `decide()` says of a candidate, by all that this depends on: see `kernel.choice`."""

REQUEST = np.dtype(
    [
        ("group", "i8"),
        ("following", "i8"),  # the slot behind it in its queue, or among the free ones
        ("preceding", "i8"),  # in the gateway's queue
        ("number", "i8"),  # by the order in which they joined that
        ("claimed", "f8"),  # the service that it asked for then
        ("charged", "f8"),  # the service that it is expected to be, while it is open
        ("arrival_s", "f8"),
        ("first_token_s", "f8"),  # not a number before it
        ("answered", "f8"),  # tokens that came from replicas which were lost since
        ("attempts", "i8"),
        ("lost_at", "i8"),  # the endpoint of the last of these
        ("prompt_tokens", "f8"),  # with what was answered; so it is for the next
        ("output_tokens", "f8"),  # without it
        ("held_from_s", "f8"),  # the first token of this endpoint; not a number before it
        ("admitted", "i8"),  # by the order in which the replica did it
        ("unread_tokens", "f8"),
        ("said", "f8"),  # tokens that it had when it was read last
        ("said_at", "f8"),  # the replica's progress at the next one
    ]
)
REPLICA = np.dtype(
    [
        ("endpoint", "i8"),  # NOBODY: there is none of this number
        ("state", "i8"),
        ("at_s", "f8"),  # when its steps began
        ("steps", "f8"),  # that run until its next event
        ("step_s", "f8"),
        ("progress", "f8"),  # steps before them
        ("admissions", "i8"),
        ("decoding", "i8"),
        ("reading", "i8"),  # the first whose prompt the step reads
        ("reading_last", "i8"),
        ("reading_count", "i8"),
        ("waiting", "i8"),  # the first that is not admitted
        ("waiting_last", "i8"),
        ("waiting_count", "i8"),
        ("kv_tokens", "f8"),  # taken by those who read or decode
    ]
)
ENDPOINT = np.dtype(
    [
        ("has_speed", "i8"),
        ("sequences", "i8"),  # of a replica, at once
        ("step_s", "f8"),  # inter-token latency of a sequence alone
        ("step_more_s", "f8"),  # what each sequence more adds to it
        ("read_s", "f8"),  # for a prompt token
        ("overhead_s", "f8"),  # before the first token of every request, besides
        ("batch_tokens", "f8"),  # of prompts and sequences, in one step
        ("kv_tokens", "f8"),  # that a replica's cache holds
        ("context_tokens", "f8"),  # of a prompt with its answer
        ("inflight", "i8"),
        ("slots", "f8"),  # as the gateway knows them; so it is for the next
        ("turn_s", "f8"),  # between two that become free; not a number before it is measured
        ("held_s", "f8"),  # since the last tick, by those that ended: how long slots were held
        ("held", "i8"),  # and how many they were
        ("busy_s", "f8"),  # for how long its replicas had a request
    ]
)
GROUP = np.dtype(
    [
        ("priority", "i8"),
        ("rank", "i8"),  # a number for its priority
        ("slot_patience_s", "f8"),  # for a slot where all are taken
        ("replica_patience_s", "f8"),  # for a replica where none is ready
        ("total_s", "f8"),  # for the whole answer: it is cut off then
        ("ttft_slo_s", "f8"),
        ("itl_slo_s", "f8"),
        ("takes_smaller", "i8"),  # variants, where nothing else fits
        ("first", "i8"),  # of its requests that wait in the gateway
        ("last", "i8"),
        ("waiting", "i8"),
        ("rests", "i8"),  # whether its first is known not to be served yet
        ("claimed", "f8"),  # service that is asked for by those who wait
        ("service", "f8"),
        ("mean_output", "f8"),
        ("has_mean", "i8"),
        ("arrived", "i8"),
        ("arrived_tokens", "f8"),  # of their prompts
        ("served", "i8"),
        ("in_slo", "i8"),
        ("shed", "i8"),
        ("late_ttft", "i8"),
        ("late_itl", "i8"),
        ("output_tokens", "f8"),
    ]
)
"""Requests of one workload."""
AGENDA = np.dtype([("when_s", "f8"), ("who", "i8"), ("position", "i8")])
"""A heap by the next event, and where in it each is."""
MOMENT = np.dtype(
    [
        ("clock_s", "f8"),
        ("free", "i8"),  # the first free slot for a request
        ("events", "i8"),  # the size of the agenda
        ("look", "i8"),  # whether queues are to be looked through
        ("waiting", "i8"),  # in all of them
        ("most_waiting", "i8"),
        ("joined", "i8"),
        ("arrived", "i8"),  # who is to be placed first
        ("lost", "i8"),  # the first of those whose replicas were lost
        ("asks", "i8"),  # for whom `decide()` is to be asked
        ("asks_smaller", "i8"),  # and whether for smaller variants too
        ("chosen", "i8"),
    ]
)


class State(NamedTuple):
    requests: Table
    replicas: Table
    ends_at: Floats
    """[replica, sequence] a heap: the replica's progress at which sequences end."""
    ends: Ints
    """[replica, sequence] whose they are."""
    endpoints: Table
    groups: Table
    places: Ints
    """[smaller variants too, group, place] endpoints that its decisions look at, NOBODY behind the
    last."""
    known: Ints
    """[smaller variants too, group, place, whether all slots are taken] a number for all that is
    known there but load and prompt."""
    answers: Floats
    """[place] what `decide()` said of them when it was asked last."""
    takes: Bools
    """[group, endpoint] whether it ever runs there."""
    meets: Bools
    """[group, group] whether they have an endpoint in common."""
    went_last: Ints
    """[rank] the group that went last, or NOBODY."""
    sent: Ints
    """[group, endpoint] requests that were sent there."""
    latency: Ints
    """[TTFT or ITL, group, bin] of those that were served."""
    ttft: Ints
    """[endpoint, bin] of first tokens since the last tick."""
    agenda: Table
    moment: Table
    """One row."""


def new_scores() -> Scores:
    scores: Scores = Dict.empty(types.int64, types.float64)
    return scores


def chain(start: int, end: int, then: int) -> Ints:
    """Links of free slots from a start to an end, and then another."""
    links = np.arange(start + 1, end + 1)
    links[-1] = then
    return links


def new_requests(size: int) -> Table:
    requests = np.zeros(size, REQUEST)
    requests["following"] = chain(0, size, NOBODY)
    return requests


def new_replicas(size: int) -> Table:
    replicas = np.zeros(size, REPLICA)
    for nobody in ("endpoint", "reading", "waiting"):
        replicas[nobody] = NOBODY
    return replicas


def new_agenda(size: int) -> Table:
    agenda = np.zeros(size, AGENDA)
    agenda["position"] = NOBODY
    return agenda


def bin_s(number: int) -> float:
    """The latency in the middle of a bin."""
    return float(LOWEST_S * 2.0 ** ((number + 0.5) / BINS_PER_DOUBLING))


def quantile_s(histogram: Ints, q: float) -> float | None:
    """None where nothing was counted."""
    return quantiles_s(histogram[None], q)[0]


def quantiles_s(histograms: Ints, q: float) -> list[float | None]:
    """Of each."""
    counted = np.cumsum(histograms, axis=1)
    total = counted[:, -1]
    bins = (counted < q * total[:, None]).sum(axis=1)
    return [
        bin_s(number) if count else None
        for number, count in zip(bins.tolist(), total.tolist(), strict=True)
    ]
