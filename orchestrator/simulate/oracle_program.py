"""The oracle's linear program, and what a solution of it means."""

from dataclasses import replace

import numpy as np

from orchestrator.policy.arrays import Floats, Ints
from orchestrator.simulate.linear_program import Entries, LinearProgram
from orchestrator.simulate.oracle_terms import Demand, Supply


class OracleProgram:
    """Columns: shares worked on, shares missed, replicas, starts, shares by which groups fall
    short (held at none). Rows: arrivals, capacity, starts, attainment."""

    def __init__(
        self,
        demand: Demand,
        supply: Supply,
        bucket_s: float,
        max_utilization: float,
        is_integer: bool,
    ) -> None:
        self.demand, self.supply, self.bucket_s = demand, supply, bucket_s
        kinds, endpoints, buckets = demand.work_s.shape
        groups, places = len(demand.attainment), endpoints * buckets
        self._places = (endpoints, buckets)
        self._kind, self._endpoint, self._arrival, done = _ways(demand, supply)
        self._arrived_kind, self._arrived = np.nonzero(demand.requests > 0)
        self._weight = self._weights()
        self._start_usd = supply.start_usd(bucket_s)
        starting = np.flatnonzero(self._start_usd.any(axis=1))
        self._starting: Ints = (starting[:, None] * buckets + np.arange(buckets)).ravel()

        ways, arrivals, starts = len(self._kind), len(self._arrived), len(self._starting)
        sizes = (ways, arrivals, places, starts, groups)
        work, missed, replicas, started, short = _ranges(sizes)
        arrival, capacity, starting_at, attained = _ranges((arrivals, places, starts, groups))
        self._missed = slice(ways, ways + arrivals)
        self._replicas = slice(ways + arrivals, ways + arrivals + places)
        self._starts = slice(self._replicas.stop, self._replicas.stop + starts)
        self._short = slice(self._starts.stop, self._starts.stop + groups)

        number = np.zeros((kinds, buckets), np.int64)
        number[self._arrived_kind, self._arrived] = arrival
        needed = demand.work_s[self._kind, self._endpoint, self._arrival] / (
            bucket_s * max_utilization
        )
        later = np.flatnonzero(self._starting % buckets)
        group = demand.group[self._arrived_kind]
        entries = _entries(
            (number[self._kind, self._arrival], work, 1.0),
            (arrival, missed, 1.0),
            (capacity[self._endpoint * buckets + done], work, needed),
            (capacity, replicas, -1.0),
            (starting_at, replicas[self._starting], 1.0),
            (starting_at[later], replicas[self._starting[later] - 1], -1.0),
            (starting_at, started, -1.0),
            (attained[group], missed, self._weight),
            (attained, short, -1.0),
        )
        standing = np.zeros(starts)
        first = supply.min_replicas if supply.standing is None else supply.standing
        at_first = self._starting % buckets == 0
        standing[at_first] = first[self._starting[at_first] // buckets]
        most = supply.most()
        running_usd = np.nan_to_num(supply.usd_per_replica_hour) * (bucket_s / 3600)
        integer = np.zeros(sum(sizes), np.bool_)
        integer[self._replicas] = True
        self.program = LinearProgram(
            cost=np.concatenate(
                [
                    np.zeros(ways + arrivals),
                    running_usd.ravel(),
                    self._start_usd.ravel()[self._starting],
                    np.zeros(groups),
                ]
            ),
            lower=np.concatenate(
                [
                    np.zeros(ways + arrivals),
                    supply.least().ravel(),
                    np.zeros(starts + groups),
                ]
            ),
            upper=np.concatenate(
                [
                    np.ones(ways + arrivals),
                    most.ravel(),
                    most.ravel()[self._starting],
                    np.zeros(groups),
                ]
            ),
            row_lower=np.concatenate(
                [np.ones(arrivals), np.full(places + starts + groups, -np.inf)]
            ),
            row_upper=np.concatenate(
                [np.ones(arrivals), np.zeros(places), standing, 1 - demand.attainment]
            ),
            entries=entries,
            integer=integer if is_integer else None,
        )

    def attaining(self) -> LinearProgram:
        """Whose solutions fall short the least, whatever that costs."""
        cost, upper = np.zeros_like(self.program.cost), self.program.upper.copy()
        cost[self._short] = 1.0
        upper[self._short] = 1.0
        return replace(self.program, cost=cost, upper=upper, integer=None)

    def falling_short(self, short: Floats) -> LinearProgram:
        """Where groups may fall short by these shares."""
        upper = self.program.upper.copy()
        upper[self._short] = short
        return replace(self.program, upper=upper)

    def short(self, x: Floats) -> Floats:
        """(G)"""
        return x[self._short]

    def attained(self, x: Floats) -> Floats:
        """(G)"""
        group = self.demand.group[self._arrived_kind]
        groups = len(self.demand.attainment)
        missed = np.bincount(group, self._weight * x[self._missed], groups)
        attained: Floats = np.clip(1 - missed, 0, 1)
        return attained

    def replicas(self, x: Floats) -> Floats:
        """(E, T)"""
        return x[self._replicas].reshape(self._places)

    def usd(self, x: Floats) -> Floats:
        """(E, T), without what is sunk."""
        usd = x[self._replicas] * self.program.cost[self._replicas]
        usd[self._starting] += x[self._starts] * self.program.cost[self._starts]
        return usd.reshape(self._places)

    def share(self, x: Floats) -> Floats:
        """(K, E, T)"""
        share = np.zeros(self.demand.work_s.shape)
        np.add.at(share, (self._kind, self._endpoint, self._arrival), x[: self._missed.start])
        return share

    def _weights(self) -> Floats:
        """Of all requests of a kind and bucket in the share that its group misses, at least: as
        few as their work takes if all were like the largest."""
        demand = self.demand
        of_group = np.bincount(demand.group, demand.requests.sum(axis=1), len(demand.attainment))
        weight = demand.requests / demand.spread_or_one()
        at = self._arrived_kind, self._arrived
        return weight[at] / of_group[demand.group[self._arrived_kind]]


def _ways(demand: Demand, supply: Supply) -> tuple[Ints, Ints, Ints, Ints]:
    """Kinds, endpoints, buckets of arrival and of work that go together."""
    allowed = np.isfinite(demand.work_s) & (demand.requests > 0)[:, None, :]
    most, buckets = supply.most(), demand.requests.shape[1]
    found = []
    for late in range(int(min(demand.slack.max(initial=0), buckets - 1)) + 1):
        way = allowed[:, :, : buckets - late] & (most[:, late:] > 0)
        kind, endpoint, arrival = np.nonzero(way & (demand.slack >= late)[:, None, None])
        found.append((kind, endpoint, arrival, arrival + late))
    kind, endpoint, arrival, done = (
        np.concatenate(columns) for columns in zip(*found, strict=True)
    )
    return kind, endpoint, arrival, done


def _ranges(sizes: tuple[int, ...]) -> list[Ints]:
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _entries(*parts: tuple[Ints, Ints, Floats | float]) -> Entries:
    return Entries(
        row=np.concatenate([row for row, _, _ in parts]),
        column=np.concatenate([column for _, column, _ in parts]),
        value=np.concatenate([np.broadcast_to(value, row.shape) for row, _, value in parts]),
    )
