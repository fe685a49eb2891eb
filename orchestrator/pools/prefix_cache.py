"""Which replica of an endpoint takes a request: where the beginning of its prompt was read, unless
that one has much more to do than another.

The rule of cache-aware routers (SGLang, vLLM's production stack): affinity within a bound on the
difference in load. A replica's cache is what it was sent; what it has evicted since is not known.
"""

import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from orchestrator.signals.prefixes import LENGTHS

CAPACITY = 50_000
"""Beginnings remembered of each replica."""
WORTHWHILE = 0.5
"""Share of a prompt that must be cached for it to matter. What many prompts share is less than
that of each, and soon cached everywhere."""


class PrefixCache:
    """What each replica has read."""

    def __init__(self, slack: int) -> None:
        """`slack`: requests that a replica may have more than the least busy one and still be
        preferred for its cache."""
        self._slack = slack
        self._read: dict[str, OrderedDict[int, None]] = {}

    def keep(self, replicas: Sequence[str]) -> None:
        """Forgets all replicas but these."""
        self._read = {r: self._read.get(r, OrderedDict()) for r in replicas}

    def rank(self, loads: Mapping[str, int], beginnings: Sequence[int]) -> list[str]:
        """Replicas by preference, given how many requests each has, for a prompt with these
        beginnings, shortest first."""
        least = min(loads.values(), default=0)

        def cost(replica: str) -> tuple[bool, float, int, int, float]:
            cached = self._cached_share(replica, beginnings)
            return (
                loads[replica] > least + self._slack,
                -cached if cached >= WORTHWHILE else 0.0,
                loads[replica],
                len(self._read.get(replica, ())),
                random.random(),
            )

        return sorted(loads, key=cost)

    def sent(self, replica: str, beginnings: Sequence[int]) -> None:
        read = self._read.setdefault(replica, OrderedDict())
        for beginning in beginnings:
            read[beginning] = None
            read.move_to_end(beginning)
        while len(read) > CAPACITY:
            read.popitem(last=False)

    def _cached_share(self, replica: str, beginnings: Sequence[int]) -> float:
        read = self._read.get(replica, ())
        for number in range(len(beginnings) - 1, -1, -1):
            if beginnings[number] in read:
                return LENGTHS[number] / LENGTHS[len(beginnings) - 1]
        return 0.0
