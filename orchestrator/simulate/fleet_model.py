"""The replicas of a simulated fleet, around the kernel's arrays."""

import numpy as np

from orchestrator.config.spec import Performance, Timeouts, Workload
from orchestrator.policy.arrays import Bools, Floats, Ints
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate import kernel, tables
from orchestrator.simulate.tables import (
    BINS,
    DRAINING,
    NOBODY,
    READY,
    State,
    Table,
    new_decisions,
)

CHUNK_TOKENS = 2048.0
"""Of prompts, in a step of an engine with the default `max_num_batched_tokens`."""
FIRST_REQUESTS = 4096
GATEWAY = "simulated"
NOT_KNOWN = Performance(
    accelerator="", prefill_tokens_per_s=1, decode_tokens_per_s=1, itl_s=1, source=""
)


class FleetModel:
    """All replicas, ready, draining or lost; those that are on their way are somebody else's."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.candidates = list(catalogue.candidates.values())
        self.workloads = list(catalogue.configuration.workloads)
        self.state = _new_state(catalogue, self.workloads)
        self.decisions = new_decisions()
        homes = (catalogue.home(w.name) for w in self.workloads)
        self.first_home = np.array([home[0].number if home else NOBODY for home in homes])
        """By group; NOBODY: it has none."""

    def start(self, endpoint: int, now_s: float) -> None:
        """One more replica that serves."""
        free = np.flatnonzero(self.state.replicas["endpoint"] == NOBODY)
        if not len(free):
            free = np.array([len(self.state.replicas)])
            self._more_replicas()
        row = self.state.replicas[free[0]]
        row["endpoint"], row["state"], row["at_s"] = endpoint, READY, now_s
        row["progress"] = row["busy_s"] = 0
        self._count_slots(endpoint)

    def drain(self, endpoint: int, replicas: int) -> None:
        """Those with the least to do take no more requests."""
        table = self.state.replicas
        ready = np.flatnonzero((table["endpoint"] == endpoint) & (table["state"] == READY))
        leaving = ready[np.argsort(self._load()[ready], kind="stable")][:replicas]
        table["state"][leaving] = DRAINING
        self._count_slots(endpoint)

    def lose(self, endpoint: int, replicas: int) -> None:
        """At once, with what they run."""
        table = self.state.replicas
        for replica in np.flatnonzero(table["endpoint"] == endpoint)[:replicas]:
            kernel.lose(self.state, int(replica))
            table["endpoint"][replica] = NOBODY
        self._count_slots(endpoint)

    def reap(self) -> None:
        """Drained replicas that are idle are gone."""
        table = self.state.replicas
        table["endpoint"][(table["state"] == DRAINING) & (self._load() == 0)] = NOBODY
        table["state"][table["endpoint"] == NOBODY] = tables.GONE

    def ready(self) -> Ints:
        """By endpoint; so are the next three."""
        return self._count(READY)

    def draining(self) -> Ints:
        return self._count(DRAINING)

    def running(self) -> Ints:
        """Requests that are read or answered."""
        table = self.state.replicas
        return self._sum(table["decoding"] + table["reading_count"]).astype(np.int64)

    def waiting(self) -> Ints:
        """Requests that wait in engines."""
        return self._sum(self.state.replicas["waiting_count"]).astype(np.int64)

    def busy_s(self) -> Floats:
        """Seconds in which replicas had a request, by endpoint, since this was asked last."""
        busy_s = self._sum(self.state.replicas["busy_s"])
        self.state.replicas["busy_s"] = 0
        return busy_s

    def more_requests(self) -> None:
        """Room for twice as many at once."""
        state, size = self.state, len(self.state.requests)
        more = np.zeros(size, tables.REQUEST)
        more["following"] = tables.chain(size, 2 * size, int(state.moment["free"][0]))
        self.state = state._replace(requests=np.concatenate([state.requests, more]))
        self.state.moment["free"] = size

    def _load(self) -> Ints:
        table = self.state.replicas
        load: Ints = table["decoding"] + table["reading_count"] + table["waiting_count"]
        return load

    def _count(self, state: int) -> Ints:
        return self._sum(self.state.replicas["state"] == state).astype(np.int64)

    def _sum(self, by_replica: Floats | Ints | Bools) -> Floats:
        """By endpoint."""
        known = self.state.replicas["endpoint"] != NOBODY
        of = self.state.replicas["endpoint"][known]
        total: Floats = np.zeros(len(self.candidates))
        np.add.at(total, of, by_replica[known])
        return total

    def _count_slots(self, endpoint: int) -> None:
        row = self.state.endpoints[endpoint]
        row["slots"] = self.ready()[endpoint] * row["sequences"]

    def _more_replicas(self) -> None:
        state, size = self.state, len(self.state.replicas)
        self.state = state._replace(
            replicas=np.concatenate([state.replicas, tables.new_replicas(size)]),
            ends_at=np.concatenate([state.ends_at, np.zeros_like(state.ends_at)]),
            ends=np.concatenate([state.ends, np.zeros_like(state.ends)]),
            agenda=np.concatenate([state.agenda, tables.new_agenda(size)]),
        )


def _new_state(catalogue: Catalogue, workloads: list[Workload]) -> State:
    endpoints = _endpoints(catalogue)
    size = max(16, sum(c.pool.min_replicas for c in catalogue.candidates.values()))
    sequences = int(endpoints["sequences"].max())
    return State(
        requests=tables.new_requests(FIRST_REQUESTS),
        replicas=tables.new_replicas(size),
        ends_at=np.zeros((size, sequences)),
        ends=np.zeros((size, sequences), np.int64),
        endpoints=endpoints,
        groups=_groups(workloads, catalogue.configuration.gateway.timeouts),
        places=_places(catalogue, workloads),
        sent=np.zeros((len(workloads), len(endpoints)), np.int64),
        latency=np.zeros((2, len(workloads), BINS), np.int64),
        ttft=np.zeros((len(endpoints), BINS), np.int64),
        agenda=tables.new_agenda(size),
        moment=np.zeros(1, tables.MOMENT),
    )


def _endpoints(catalogue: Catalogue) -> Table:
    candidates = list(catalogue.candidates.values())
    # Where nothing is known of a place nothing is sent: see `Decider`.
    performances = [c.performance or NOT_KNOWN for c in candidates]
    endpoints = np.zeros(len(candidates), tables.ENDPOINT)
    sequences = np.array([c.variant.max_num_seqs for c in candidates])
    step_s = np.array([p.itl_s for p in performances])
    full_s = sequences / np.array([p.decode_tokens_per_s for p in performances])
    endpoints["sequences"] = sequences
    endpoints["step_s"] = step_s
    endpoints["step_more_s"] = np.maximum(full_s - step_s, 0) / np.maximum(sequences - 1, 1)
    endpoints["read_s"] = [1 / p.prefill_tokens_per_s for p in performances]
    endpoints["chunk_tokens"] = CHUNK_TOKENS
    endpoints["kv_tokens"] = [p.kv_cache_tokens or np.inf for p in performances]
    return endpoints


def _groups(workloads: list[Workload], timeouts: Timeouts) -> Table:
    groups = np.zeros(len(workloads), tables.GROUP)
    groups["first"] = groups["last"] = NOBODY
    for row, workload in zip(groups, workloads, strict=True):
        slo = workload.slo
        row["priority"] = workload.priority
        deadline_s = timeouts.first_token_s if slo.deadline_s is None else slo.deadline_s
        row["slot_patience_s"] = deadline_s
        row["total_s"] = timeouts.total_s
        row["replica_patience_s"] = workload.when_infeasible.queue_s
        row["ttft_slo_s"] = slo.ttft_p95_s
        row["itl_slo_s"] = np.inf if slo.itl_p95_s is None else slo.itl_p95_s
    return groups


def _places(catalogue: Catalogue, workloads: list[Workload]) -> Ints:
    """Also those of smaller variants, where they may answer."""
    places = []
    for workload in workloads:
        smaller = workload.when_infeasible.min_quality is not None
        selection = catalogue.selection(
            workload.name, workload.models[0], workload.data_class, smaller
        )
        places.append([c.number for c in selection.candidates])
    table = np.full((len(workloads), max(1, *map(len, places))), NOBODY)
    for row, numbers in zip(table, places, strict=True):
        row[: len(numbers)] = numbers
    return table
