"""Capacity that is ordered, comes, fails, is taken away: what clouds and clusters do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.capacity.provision import Progress
from orchestrator.policy.arrays import Floats
from orchestrator.simulate.fleet_model import FleetModel
from orchestrator.simulate.prices import Series

SPREAD = 0.2
"""Of provisioning times: the deviation of their logarithm around the pool's `provision_s`."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """What goes wrong, besides supply that runs out."""

    failed_starts: float = 0.0
    """Share of the replicas that never come."""
    failures_per_hour: float = 0.0
    """Of each replica."""


class CapacityModel:
    """Replicas that are on their way, by endpoint, and the supply of each pool."""

    def __init__(
        self,
        model: FleetModel,
        supply: Mapping[str, Series],
        troubles: Troubles,
        random: np.random.Generator,
    ) -> None:
        """`supply`: replicas that a pool can have at a time, by pool; others: its maximum."""
        self._model = model
        self._supply = supply
        self._troubles = troubles
        self._random = random
        self._coming: list[list[float]] = [[] for _ in model.candidates]
        """When each is there; infinity: never."""
        self._refused: dict[str, str] = {}
        self.started = 0
        self.lost = 0
        for candidate in model.candidates:
            for _ in range(candidate.pool.min_replicas):
                model.start(candidate.number, 0.0)

    def coming(self, number: int) -> int:
        return len(self._coming[number])

    def progress(self) -> dict[str, Progress]:
        """By endpoint, of those whose cluster refused something."""
        return {e: Progress(failed=why) for e, why in self._refused.items()}

    def pass_time(self, now_s: float, passed_s: float) -> None:
        """What has come since the last tick, and what was lost."""
        model = self._model
        model.reap()
        for number, coming in enumerate(self._coming):
            if coming and min(coming) <= now_s:
                for _ in range(sum(at_s <= now_s for at_s in coming)):
                    model.start(number, now_s)
                    self.started += 1
                self._coming[number] = [at_s for at_s in coming if at_s > now_s]
        if self._troubles.failures_per_hour:
            self._fail(passed_s)
        for pool in self._supply:
            self._preempt(pool, now_s)

    def order(self, targets: Mapping[str, int], now_s: float) -> None:
        """Brings what stays to its target: starts, cancels what has not come, drains."""
        model = self._model
        ready = model.ready()
        for number, candidate in enumerate(model.candidates):
            coming = self._coming[number]
            more = targets.get(candidate.endpoint, 0) - int(ready[number]) - len(coming)
            if more > 0:
                self._start(number, more, now_s)
            elif more < 0:
                coming.sort()
                cancelled = min(len(coming), -more)
                del coming[len(coming) - cancelled :]
                model.drain(number, -more - cancelled)

    def paid_replicas(self) -> Floats:
        """By endpoint: from the order to the end of the drain."""
        paid = (self._model.ready() + self._model.draining()).astype(float)
        for number, coming in enumerate(self._coming):
            paid[number] += len(coming)
        return paid

    def _start(self, number: int, replicas: int, now_s: float) -> None:
        candidate = self._model.candidates[number]
        room = self._room(candidate.pool.name, now_s)
        self._refused.pop(candidate.endpoint, None)
        if room < replicas:
            self._refused[candidate.endpoint] = "no capacity is offered"
            replicas = int(room)
        for _ in range(replicas):
            delay_s = candidate.pool.provision_s * math.exp(self._random.normal(0, SPREAD))
            fails = self._random.random() < self._troubles.failed_starts
            self._coming[number].append(math.inf if fails else now_s + delay_s)

    def _room(self, pool: str, now_s: float) -> float:
        if pool not in self._supply:
            return math.inf
        return max(0.0, self._offered(pool, now_s) - self._held(pool))

    def _offered(self, pool: str, now_s: float) -> int:
        offered = self._supply[pool].at(now_s)
        return 0 if math.isnan(offered) else int(offered)

    def _held(self, pool: str) -> int:
        paid = self.paid_replicas()
        return int(sum(paid[c.number] for c in self._model.catalogue.by_pool[pool]))

    def _preempt(self, pool: str, now_s: float) -> None:
        over = self._held(pool) - self._offered(pool, now_s)
        for candidate in self._model.catalogue.by_pool[pool]:
            if over <= 0:
                return
            coming = self._coming[candidate.number]
            cancelled = min(over, len(coming))
            del coming[len(coming) - cancelled :]
            over -= cancelled
            running = int(
                self._model.ready()[candidate.number] + self._model.draining()[candidate.number]
            )
            taken = min(over, running)
            if taken:
                self._model.lose(candidate.number, taken, self._random)
                self.lost += taken
                over -= taken

    def _fail(self, passed_s: float) -> None:
        chance = -math.expm1(-self._troubles.failures_per_hour * passed_s / 3600)
        standing = self._model.ready() + self._model.draining()
        for number, replicas in enumerate(standing):
            failed = int(self._random.binomial(replicas, chance)) if replicas else 0
            if failed:
                self._model.lose(number, failed, self._random)
                self.lost += failed
