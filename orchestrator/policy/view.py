"""A snapshot laid over the catalogue: what decisions look up, as arrays by candidate number."""

from math import ceil

import numpy as np

from orchestrator.policy.arrays import Bools, Floats
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.selection import Selection
from orchestrator.policy.snapshot import EndpointState, Snapshot

UNKNOWN = EndpointState()
DEFAULT_SLOT_S = 1.0
"""How long a request holds a slot, assumed until the first ones have been measured."""
BACKLOG = 0.25
"""Of the slots, that many requests more are sent: they wait in the engine, so that a slot that
becomes free is taken at once. They cover a round trip of a quarter of the time for which a request
holds its slot; so long, too, whoever is most important may have to wait for them."""


def room(slots: int) -> int:
    """Requests that replicas with so many slots are given at a time."""
    return slots + ceil(BACKLOG * slots)


class View:
    """What one gateway decides on: made once for each snapshot, never changed."""

    __slots__ = ("_rows", "catalogue", "held", "snapshot", "table")

    def __init__(self, catalogue: Catalogue, snapshot: Snapshot, gateway_id: str = "") -> None:
        """`gateway_id` is whose view it is: the requests that it has open itself are counted as
        they come and go, and not taken from the snapshot."""
        self.catalogue = catalogue
        self.snapshot = snapshot
        columns = [_column(c, snapshot, gateway_id) for c in catalogue.candidates.values()]
        self.table: Floats = np.array(columns, np.float64).T.copy()
        """Its rows are described at `Question`, which takes what it needs of each."""
        self._rows: dict[Selection, tuple[Floats, ...]] = {}
        self.held: Bools | None = None
        """By candidate number, whether its pool takes no request. None when all do."""
        if snapshot.holds:
            pools = [c.pool.name for c in catalogue.candidates.values()]
            self.held = np.array([pool in snapshot.holds for pool in pools], bool)

    def rows(self, selection: Selection) -> tuple[Floats, ...]:
        """The table's, of these candidates alone."""
        rows = self._rows.get(selection)
        if rows is None:
            table = self.table.take(selection.numbers, 1)
            table.flags.writeable = False
            rows = self._rows[selection] = tuple(table)
        return rows

    def replicas(self, endpoint: str) -> int:
        """That are ready."""
        return self.snapshot.endpoints.get(endpoint, UNKNOWN).ready_replicas


def _column(candidate: Candidate, snapshot: Snapshot, gateway_id: str) -> tuple[float, ...]:
    state = snapshot.endpoints.get(candidate.endpoint, UNKNOWN)
    slots = max(1, state.ready_replicas * candidate.variant.max_num_seqs)
    quote = snapshot.quotes.get(candidate.pool.name)
    slot_s = DEFAULT_SLOT_S if state.slot_s is None else state.slot_s
    others = [n for gateway, n in state.inflight.items() if gateway != gateway_id]
    # A gateway that others leave no room takes its part all the same, and they give way to it.
    part = ceil(room(slots) / (len(others) + 1)) if gateway_id else 0
    per_hour = quote.usd_per_gpu_hour if quote else float("nan")
    per_million = candidate.usd_per_million_tokens(quote)
    return (
        state.ready_replicas,
        slots,
        max(room(slots), sum(others) + part),
        sum(others) + 1,
        slot_s / slots,
        _reading_s(candidate, snapshot, slot_s) / max(1, state.ready_replicas),
        0.0 if candidate.pool.price.tokens else per_hour,
        float("nan") if per_million is None else per_million,
    )


def _reading_s(candidate: Candidate, snapshot: Snapshot, slot_s: float) -> float:
    """How long a replica will still read for each request that it has: an ordinary prompt, by the
    chance that it is not read yet."""
    tokens = snapshot.prompt_tokens.get(candidate.model.name)
    if tokens is None or candidate.performance is None:
        return 0.0
    read_s = tokens / candidate.performance.prefill_tokens_per_s
    return read_s * read_s / (read_s + slot_s)
