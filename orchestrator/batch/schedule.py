"""How many lines of batches may be open now: pure, by what endpoints have idle and by deadlines."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config.spec import Batch as Rules

URGENT_FROM, URGENT_FULL = 0.25, 0.75
"""Lines wait for idle slots until the deadline asks for this share of what can be open at once; at
the other share all of it is used. Between them the share in use rises twice as fast as the share
that is asked for and overtakes it half way: what is left then falls faster than the time for it."""
LAST_LINES = 2
"""So many lines' time is kept at the end: the last ones take as long as any."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch has left."""

    left: int
    """Lines that are not done, open ones among them."""
    deadline_s: float
    line_s: float
    """What one line takes."""


@dataclass(frozen=True, slots=True)
class Room:
    """An endpoint as deferrable work sees it. Prices are not numbers where they are not known."""

    endpoint: str
    slots: float
    urgent: float
    """Requests there that are no lines."""
    queued: bool
    """Some of them wait for a slot."""
    paid_for: bool
    """It costs the same whether it is used or not."""
    usd_per_gpu_hour: float
    usd_per_million_tokens: float


def idle(room: Room, rules: Rules) -> int:
    """Lines that may be open there for no other reason than that nobody else needs the slots.

    Where it is cheap they may take every free slot. What is rented or paid by the token is left
    alone otherwise: lines would keep it from being given back.
    """
    cheap = _below(room.usd_per_gpu_hour, rules.usd_per_gpu_hour_below) or _below(
        room.usd_per_million_tokens, rules.usd_per_million_tokens_below
    )
    if room.queued or not (cheap or room.paid_for):
        return 0
    usable = room.slots * (1 if cheap else 1 - rules.keep_free)
    return max(0, math.floor(usable - room.urgent))


def needed(works: Iterable[Work], concurrency: float, now_s: float) -> int:
    """Lines that have to be open whatever else runs, for every deadline to be kept.

    `concurrency`: the most that can be open at once. Batches go by their deadlines, so what one
    asks for contains all that is due before it.
    """
    slot_s = 0.0
    left = most = 0
    for work in sorted(works, key=lambda work: work.deadline_s):
        if not work.left:
            continue
        left += work.left
        slot_s += work.left * work.line_s
        time_s = work.deadline_s - now_s - LAST_LINES * work.line_s
        can_be_done = time_s * concurrency
        pressure = slot_s / can_be_done if can_be_done > 0 else math.inf
        share = (pressure - URGENT_FROM) / (URGENT_FULL - URGENT_FROM)
        most = max(most, min(left, math.ceil(min(max(share, 0.0), 1.0) * concurrency)))
    return most


def _below(price: float, ceiling: float | None) -> bool:
    return ceiling is not None and price < ceiling
