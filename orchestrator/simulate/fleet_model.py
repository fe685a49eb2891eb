"""The replicas of a simulated fleet, around the kernel's arrays."""

import numpy as np

from orchestrator.config.spec import Performance, Timeouts, Variant, Workload
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
    new_scores,
)

BATCH_TOKENS = 2048
"""vLLM's default of `max_num_batched_tokens`."""
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
        self.scores = new_scores()
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
        row["progress"] = row["admissions"] = 0

    def drain(self, endpoint: int, replicas: int) -> None:
        """Those with the least to do take no more requests."""
        table = self.state.replicas
        ready = np.flatnonzero((table["endpoint"] == endpoint) & (table["state"] == READY))
        leaving = ready[np.argsort(self._load()[ready], kind="stable")][:replicas]
        table["state"][leaving] = DRAINING

    def lose(self, endpoint: int, replicas: int, random: np.random.Generator) -> None:
        """At once, with what they run: any of them."""
        table = self.state.replicas
        standing = np.flatnonzero(table["endpoint"] == endpoint)
        for replica in random.choice(standing, replicas, replace=False):
            kernel.lose(self.state, int(replica))
            table["endpoint"][replica] = NOBODY

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
        """Seconds in which replicas had a request, by endpoint, of steps that have ended."""
        busy_s: Floats = self.state.endpoints["busy_s"]
        return busy_s

    def lost(self) -> list[int]:
        """Requests whose replicas were lost, until this is asked: those first whose answers had
        begun, then the newest."""
        requests, moment = self.state.requests, self.state.moment
        numbers, number = [], int(moment["lost"][0])
        while number != NOBODY:
            numbers.append(number)
            number = int(requests["following"][number])
        moment["lost"] = NOBODY
        waits = np.isnan(requests["first_token_s"])
        arrival_s = requests["arrival_s"]
        return sorted(numbers, key=lambda n: (waits[n], -arrival_s[n], -n))

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
        return np.bincount(of, by_replica[known], len(self.candidates)).astype(np.float64)

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
    groups = _groups(workloads, catalogue.configuration.gateway.timeouts)
    places = _places(catalogue, workloads)
    takes = np.zeros((len(groups), len(endpoints)), bool)
    for group, row in enumerate(groups):
        at = places[row["takes_smaller"], group]
        takes[group, at[at != NOBODY]] = True
    size = max(16, sum(c.pool.min_replicas for c in catalogue.candidates.values()))
    sequences = int(endpoints["sequences"].max())
    return State(
        requests=tables.new_requests(FIRST_REQUESTS),
        replicas=tables.new_replicas(size),
        ends_at=np.zeros((size, sequences)),
        ends=np.zeros((size, sequences), np.int64),
        endpoints=endpoints,
        groups=groups,
        places=places,
        known=np.zeros((*places.shape, 2), np.int64),
        answers=np.zeros(places.shape[2]),
        takes=takes,
        meets=(takes[:, None] & takes[None, :]).any(axis=2),
        went_last=np.full(len(groups), NOBODY),
        sent=np.zeros((len(groups), len(endpoints)), np.int64),
        latency=np.zeros((2, len(groups), BINS), np.int64),
        ttft=np.zeros((len(endpoints), BINS), np.int64),
        agenda=tables.new_agenda(len(groups) + size),
        moment=_moment(catalogue),
    )


def _moment(catalogue: Catalogue) -> Table:
    gateway = catalogue.configuration.gateway
    moment = np.zeros(1, tables.MOMENT)
    moment["most_waiting"] = gateway.max_queued_requests * gateway.replicas
    moment["arrived"] = moment["lost"] = moment["asks"] = NOBODY
    return moment


def _endpoints(catalogue: Catalogue) -> Table:
    candidates = list(catalogue.candidates.values())
    # Where nothing is known of a place nothing is sent: see `Decider`.
    performances = [c.performance or NOT_KNOWN for c in candidates]
    endpoints = np.zeros(len(candidates), tables.ENDPOINT)
    sequences = np.array([c.variant.max_num_seqs for c in candidates])
    step_s = np.array([p.itl_s for p in performances])
    full_s = sequences / np.array([p.decode_tokens_per_s for p in performances])
    endpoints["has_speed"] = [c.performance is not None for c in candidates]
    endpoints["sequences"] = sequences
    endpoints["step_s"] = step_s
    endpoints["step_more_s"] = np.maximum(full_s - step_s, 0) / np.maximum(sequences - 1, 1)
    endpoints["overhead_s"] = [p.overhead_s for p in performances]
    endpoints["read_s"] = [1 / p.prefill_tokens_per_s for p in performances]
    endpoints["batch_tokens"] = [_batch_tokens(c.variant) for c in candidates]
    endpoints["kv_tokens"] = [p.kv_cache_tokens or np.inf for p in performances]
    endpoints["context_tokens"] = [c.variant.max_model_len for c in candidates]
    return endpoints


def _batch_tokens(variant: Variant) -> int:
    """vLLM starts with no fewer than one for each sequence."""
    given = variant.engine_args.get("max_num_batched_tokens", BATCH_TOKENS)
    return max(int(given), variant.max_num_seqs)


def _groups(workloads: list[Workload], timeouts: Timeouts) -> Table:
    groups = np.zeros(len(workloads), tables.GROUP)
    groups["first"] = groups["last"] = NOBODY
    ranks = {p: rank for rank, p in enumerate(sorted({w.priority for w in workloads}))}
    for row, workload in zip(groups, workloads, strict=True):
        slo, infeasible = workload.slo, workload.when_infeasible
        row["priority"], row["rank"] = workload.priority, ranks[workload.priority]
        deadline_s = timeouts.first_token_s if slo.deadline_s is None else slo.deadline_s
        row["slot_patience_s"] = min(deadline_s, timeouts.total_s)
        row["replica_patience_s"] = min(infeasible.queue_s, timeouts.total_s)
        row["total_s"] = timeouts.total_s
        row["ttft_slo_s"] = slo.ttft_p95_s
        row["itl_slo_s"] = np.inf if slo.itl_p95_s is None else slo.itl_p95_s
        row["takes_smaller"] = infeasible.min_quality is not None
    return groups


def _places(catalogue: Catalogue, workloads: list[Workload]) -> Ints:
    found = [
        [catalogue.selection(w.name, w.models[0], w.data_class, smaller).numbers for w in workloads]
        for smaller in (False, True)
    ]
    most = max((len(numbers) for kind in found for numbers in kind), default=0)
    table = np.full((2, len(workloads), max(1, most)), NOBODY)
    for kind, rows in zip(table, found, strict=True):
        for row, numbers in zip(kind, rows, strict=True):
            row[: len(numbers)] = numbers
    return table
