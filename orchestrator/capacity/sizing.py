"""How many replicas the forecast load takes: at home first, and of what is rented for the rest.

Workloads that may not leave have the first claim on their homes, then those of higher priority;
the load of the others that does not fit there overflows. Both are reckoned for each share of a
forecast, so that a peak which is rare enough to be within the objective is not paid for.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.capacity.forecast import SHARES, Forecast
from orchestrator.capacity.replica_model import ReplicaModel, Typical
from orchestrator.config.spec import Slo, Workload
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import EndpointState, Quote

ATTAINMENT = 0.99
"""Of the objectives: the share of requests that capacity is planned for."""
PLANNED_LATE = 0.7 * (1 - ATTAINMENT)
"""The rest of what may be late is for what no forecast knows."""
RETURN_SHARE = 0.85
"""Of what home carries: a burst ends when the load fits into it."""
CLEAR_S = 60.0
"""In which what has piled up is worked off."""
WEIGHTS: tuple[float, ...] = tuple(SHARES.tolist())
UNKNOWN = EndpointState()


@dataclass(slots=True)
class _Place:
    """An endpoint as it is filled."""

    candidate: Candidate
    most: int
    """Replicas that it can have."""
    rps: list[float] = field(default_factory=lambda: [0.0] * len(WEIGHTS))
    mix: "_Mix" = field(default_factory=lambda: _Mix())


@dataclass(slots=True)
class _Mix:
    """What the requests of several workloads are like together."""

    rps: float = 0.0
    prompt_tokens: float = 0.0
    """By second; so is the next."""
    output_tokens: float = 0.0
    variation: float = 1.0
    ttft_s: float = float("inf")
    itl_s: float | None = None
    """The strictest objectives of them."""

    def add(self, forecast: Forecast, slo: Slo) -> None:
        rps = max(_mean(forecast.rps), 1e-6)
        self.rps += rps
        self.prompt_tokens += rps * forecast.prompt_tokens
        self.output_tokens += rps * forecast.output_tokens
        self.variation = max(self.variation, forecast.variation)
        self.ttft_s = min(self.ttft_s, slo.ttft_p95_s)
        if slo.itl_p95_s is not None:
            self.itl_s = slo.itl_p95_s if self.itl_s is None else min(self.itl_s, slo.itl_p95_s)

    def model(self, candidate: Candidate) -> ReplicaModel:
        typical = Typical(
            self.prompt_tokens / self.rps, self.output_tokens / self.rps, self.variation
        )
        return ReplicaModel(candidate, typical, Slo(ttft_p95_s=self.ttft_s, itl_p95_s=self.itl_s))


@dataclass(frozen=True, slots=True)
class Overflow:
    """Of one workload: what home does not carry."""

    forecast: Forecast
    rps: tuple[float, ...]
    """For each share of the forecast."""
    slo: Slo


class Sizing:
    """Of the workloads and endpoints of which enough is known: a forecast, and the performance
    wherever the workload is at home."""

    def __init__(
        self,
        catalogue: Catalogue,
        forecasts: Mapping[str, Forecast],
        endpoints: Mapping[str, EndpointState],
        quotes: Mapping[str, Quote],
        limits: Mapping[str, int],
        bursting: Collection[str],
    ) -> None:
        """`limits`: replicas that endpoints can have, where that is not the pool's maximum.
        `bursting`: workloads that are, for which home is full earlier."""
        self._catalogue, self._endpoints, self._quotes = catalogue, endpoints, quotes
        self._limits, self._bursting = limits, bursting
        self._places: dict[str, _Place] = {}
        self._backlogs: set[str] = set()
        self._overflows: dict[str, Overflow] = {}
        self._unknown: set[str] = set()
        """Endpoints that also serve somebody of whom too little is known."""
        for workload in sorted(catalogue.configuration.workloads, key=_claim):
            forecast, home = forecasts.get(workload.name), catalogue.home(workload.name)
            if forecast is None or any(c.performance is None for c in home):
                self._unknown.update(c.endpoint for c in home)
            else:
                self._fill(workload, forecast, home)

    def knows(self, workload: str) -> bool:
        return workload in self._overflows

    def home_replicas(self) -> dict[str, int]:
        """By endpoint, what is needed of the owned."""
        return {
            endpoint: _fewest(place.mix.model(place.candidate), place.rps, place.rps, place.most)
            for endpoint, place in self._places.items()
            if endpoint not in self._unknown
        }

    def rented_replicas(self, workloads: Sequence[str], candidate: Candidate) -> int | None:
        """Of one endpoint, for what overflows from all these workloads. None where it is not
        known."""
        overflows = [self._overflows[w] for w in workloads if w in self._overflows]
        if candidate.performance is None or len(overflows) < len(workloads):
            return None
        state = self._endpoints.get(candidate.endpoint, UNKNOWN)
        backlog_rps = (state.waiting + state.queued) / CLEAR_S
        rps, mix = [backlog_rps] * len(WEIGHTS), _Mix()
        offered = [0.0] * len(WEIGHTS)
        for overflow in overflows:
            mix.add(overflow.forecast, overflow.slo)
            rps = [a + b for a, b in zip(rps, overflow.rps, strict=True)]
            offered = [a + b for a, b in zip(offered, overflow.forecast.rps, strict=True)]
        if not any(rps):
            return 0
        limit = self._limits.get(candidate.endpoint, candidate.pool.max_replicas)
        return _fewest(mix.model(candidate), rps, offered, limit)

    def _fill(self, workload: Workload, forecast: Forecast, home: Sequence[Candidate]) -> None:
        left = [rps + self._backlog_rps(workload, home) for rps in forecast.rps]
        stays = workload.burst is None
        for candidate in sorted(home, key=self._usd):
            place = self._place(candidate)
            place.mix.add(forecast, workload.slo)
            most = place.mix.model(candidate).most_rps(place.most, PLANNED_LATE)
            if workload.name in self._bursting:
                most *= RETURN_SHARE
            for share, rps in enumerate(left):
                taken = min(rps, max(most - place.rps[share], 0.0))
                place.rps[share] += taken
                left[share] -= taken
        if stays and home:
            # Too much for what there is, and nowhere else to go.
            place = self._place(min(home, key=self._usd))
            place.rps = [a + b for a, b in zip(place.rps, left, strict=True)]
        self._overflows[workload.name] = Overflow(forecast, tuple(left), workload.slo)

    def _backlog_rps(self, workload: Workload, home: Iterable[Candidate]) -> float:
        """What waits at home goes to the first who may leave it."""
        if workload.burst is None:
            return 0.0
        waiting = 0
        for candidate in home:
            if candidate.endpoint not in self._backlogs:
                self._backlogs.add(candidate.endpoint)
                state = self._endpoints.get(candidate.endpoint, UNKNOWN)
                waiting += state.waiting + state.queued
        return waiting / CLEAR_S

    def _place(self, candidate: Candidate) -> _Place:
        place = self._places.get(candidate.endpoint)
        if place is None:
            most = self._limits.get(candidate.endpoint, candidate.pool.max_replicas)
            place = self._places[candidate.endpoint] = _Place(candidate, most)
        return place

    def _usd(self, candidate: Candidate) -> tuple[float, str]:
        quote, performance = self._quotes.get(candidate.pool.name), candidate.performance
        assert performance is not None
        usd = quote.usd_per_gpu_hour if quote is not None else float("inf")
        per_token = usd * candidate.pool.gpus_per_replica / performance.decode_tokens_per_s
        return per_token, candidate.endpoint


def _claim(workload: Workload) -> tuple[bool, int, str]:
    return workload.burst is not None, -workload.priority, workload.name


def _mean(rps: Sequence[float]) -> float:
    return sum(weight * each for weight, each in zip(WEIGHTS, rps, strict=True))


def _fewest(model: ReplicaModel, rps: Sequence[float], offered: Sequence[float], most: int) -> int:
    """Replicas with which few enough of what is offered are late."""
    allowed = PLANNED_LATE * _mean(offered)

    def suffice(replicas: int) -> bool:
        late = 0.0
        for weight, each in zip(reversed(WEIGHTS), reversed(rps), strict=True):
            late += weight * each * model.late_share(each, replicas)
            if late > allowed:
                return False
        return True

    if suffice(0):
        return 0
    low, high = 0, 1
    while high < most and not suffice(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if suffice(middle):
            high = middle
        else:
            low = middle
    return high
