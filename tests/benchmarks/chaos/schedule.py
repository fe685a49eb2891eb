"""Which fault comes when: a seed says. Pure."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

NEEDS_S: Mapping[str, float] = {
    "controller": 60,
    "leader": 60,
    "cloud head": 300,
    "cloud engine": 240,
    "home engine": 180,
    "price hangs": 130,
    "price lies": 150,
    "disk full": 60,
    "home drained": 60,
}
"""Every fault, and the time that it may take, preparation and recovery included."""


def deck(seed: int, names: Sequence[str] = tuple(NEEDS_S)) -> Iterator[str]:
    """Endless: round after round, each with all of them, in an order of its own."""
    mix = random.Random(seed)
    while True:
        yield from mix.sample(list(names), len(names))


def following(faults: Iterator[str], names: Sequence[str], done: int, left_s: float) -> str | None:
    """The next fault. The first round is played whole; after it, whatever still fits into the time
    that is left. None: nothing does."""
    if done < len(names):
        return next(faults)
    for name in islice(faults, len(names)):
        if NEEDS_S[name] <= left_s:
            return name
    return None
