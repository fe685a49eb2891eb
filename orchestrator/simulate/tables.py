"""The state of a simulation, in structured arrays that the kernel goes through."""

from collections.abc import MutableMapping
from typing import Any, NamedTuple

import numpy as np
from numba import types  # type: ignore[attr-defined]
from numba.typed import Dict

from orchestrator.policy.arrays import Floats, Ints

NOBODY = -1
GONE, READY, DRAINING = 0, 1, 2
TTFT, ITL = 0, 1
BINS = 256
LOWEST_S = 1e-4
BINS_PER_DOUBLING = 8
"""Latencies are counted in bins of 9 %, from 0.1 ms."""

Table = Any
"""A structured array; what its fields mean stands at its dtype."""
Decisions = MutableMapping[int, int]
"""From a key of the situation to an endpoint's number, or the reason for none."""

REQUEST = np.dtype(
    [
        ("group", "i8"),
        ("following", "i8"),  # the slot behind it in its queue, or among the free ones
        ("arrival_s", "f8"),
        ("prompt_tokens", "f8"),
        ("output_tokens", "f8"),
        ("first_token_s", "f8"),  # not a number before it
        ("said_at", "f8"),  # the replica's progress when it began to decode
        ("answered", "f8"),  # tokens that came from replicas which were lost since
    ]
)
REPLICA = np.dtype(
    [
        ("endpoint", "i8"),  # NOBODY: there is none of this number
        ("state", "i8"),
        ("progress", "f8"),  # tokens that each of its sequences has decoded since it began
        ("at_s", "f8"),  # up to which it is worked out
        ("decoding", "i8"),
        ("reading", "i8"),  # the first request whose prompt is to be read
        ("reading_last", "i8"),
        ("reading_count", "i8"),
        ("unread_tokens", "f8"),  # of the first
        ("waiting", "i8"),  # the first that waits for a sequence or for room in the KV cache
        ("waiting_last", "i8"),
        ("waiting_count", "i8"),
        ("kv_tokens", "f8"),  # taken by those who read or decode
        ("busy_s", "f8"),  # for how long it has had a request
    ]
)
ENDPOINT = np.dtype(
    [
        ("sequences", "i8"),  # of a replica, at once
        ("step_s", "f8"),  # inter-token latency of a sequence alone
        ("step_more_s", "f8"),  # what each sequence more adds to it
        ("read_s", "f8"),  # for a prompt token
        ("chunk_tokens", "f8"),  # of prompts, read in one step
        ("kv_tokens", "f8"),  # that a replica's cache holds
        ("inflight", "i8"),
        ("slots", "i8"),  # sequences of all its ready replicas
        ("held_s", "f8"),  # since the last tick, by those that ended: how long slots were held
        ("held", "i8"),  # and how many they were
    ]
)
GROUP = np.dtype(
    [
        ("priority", "i8"),
        ("slot_patience_s", "f8"),  # for a slot where all are taken
        ("replica_patience_s", "f8"),  # for a replica where none is ready
        ("total_s", "f8"),  # for the rest of an answer that broke off, from its arrival
        ("ttft_slo_s", "f8"),
        ("itl_slo_s", "f8"),
        ("situation", "i8"),  # a number for all that its decisions depend on but load and prompt
        ("first", "i8"),  # of its requests that wait in the gateway
        ("last", "i8"),
        ("waiting", "i8"),
        ("tokens", "f8"),  # sent, for fairness
        ("refused", "i8"),  # whether its first request is known not to be served yet
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
"""A heap of replicas by their next event, and where in it each is."""
MOMENT = np.dtype([("clock_s", "f8"), ("free", "i8"), ("events", "i8"), ("look", "i8")])
"""The time, the first free slot for a request, the size of the agenda, whether queues are to be
looked through."""


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
    """[group, place] endpoints that its decisions look at, NOBODY behind the last."""
    sent: Ints
    """[group, endpoint] requests that were sent there."""
    latency: Ints
    """[TTFT or ITL, group, bin]"""
    ttft: Ints
    """[endpoint, bin] since the last tick."""
    agenda: Table
    moment: Table
    """One row."""


def new_decisions() -> Decisions:
    decisions: Decisions = Dict.empty(types.int64, types.int64)
    return decisions


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
    total = int(histogram.sum())
    return bin_s(int(np.searchsorted(np.cumsum(histogram), q * total))) if total else None
