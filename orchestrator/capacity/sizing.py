"""How many replicas the forecast load takes: at home first, and of what is rented for the rest.

Workloads that may not leave have the first claim on their homes, with all that they bring; then
those of higher priority, with as much of it as is on time.
What is rented is reckoned together with what they leave of home, for each share of a forecast: a
peak which is rare enough to be within the objective is not paid for. Where it is said what a
request outside its objectives costs, replicas are rented as long as they avert more.
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
OVERLOADED_LATE = 0.5
"""Of requests: more are late only where they come faster than they are served."""
RETURN_SHARE = 0.75
"""Of home: a burst ends when the load fits into it."""
NONE_LATE = 1e-5
CLEAR_S = 60.0
"""In which what has piled up is worked off."""
WEIGHTS: tuple[float, ...] = tuple(SHARES.tolist())
UNKNOWN = EndpointState()


@dataclass(slots=True)
class _Mix:
    """What the requests of several workloads are like together."""

    rps: float = 0.0
    prompt_tokens: float = 0.0
    """By second; so is the next."""
    output_tokens: float = 0.0
    variation: float = 1.0
    prompt_variation: float = 1.0
    ttft_s: float = float("inf")
    itl_s: float | None = None
    """The strictest objectives of them."""
    miss_usd: float | None = 0.0
    """The highest; None where one of them says none."""

    def add(self, forecast: Forecast, slo: Slo) -> None:
        rps = max(_mean(forecast.rps), 1e-6)
        self.rps += rps
        self.prompt_tokens += rps * forecast.prompt_tokens
        self.output_tokens += rps * forecast.output_tokens
        self.variation = max(self.variation, forecast.variation)
        self.prompt_variation = max(self.prompt_variation, forecast.prompt_variation)
        if self.miss_usd is not None:
            self.miss_usd = None if slo.miss_usd is None else max(self.miss_usd, slo.miss_usd)
        self.ttft_s = min(self.ttft_s, slo.ttft_p95_s)
        if slo.itl_p95_s is not None:
            self.itl_s = slo.itl_p95_s if self.itl_s is None else min(self.itl_s, slo.itl_p95_s)

    def model(self, candidate: Candidate) -> ReplicaModel:
        typical = Typical(
            self.prompt_tokens / self.rps,
            self.output_tokens / self.rps,
            self.variation,
            self.prompt_variation,
        )
        return ReplicaModel(candidate, typical, Slo(ttft_p95_s=self.ttft_s, itl_p95_s=self.itl_s))


@dataclass(slots=True)
class _Place:
    """An owned endpoint as it is filled."""

    candidate: Candidate
    most: int
    """Replicas that it can have."""
    claims: dict[str, list[float]] = field(default_factory=dict)
    """By workload, requests a second for each share."""
    work_s: dict[str, float] = field(default_factory=dict)
    """By workload, what a request takes of a replica."""
    mix: _Mix = field(default_factory=_Mix)
    _model: ReplicaModel | None = None

    def model(self) -> ReplicaModel:
        if self._model is None:
            self._model = self.mix.model(self.candidate)
        return self._model

    def add(self, workload: Workload, forecast: Forecast) -> None:
        self.mix.add(forecast, workload.slo)
        self._model = None
        alone = _Mix()
        alone.add(forecast, workload.slo)
        self.work_s[workload.name] = alone.model(self.candidate).work_s

    def rps(self) -> list[float]:
        """Of all claims."""
        total = [0.0] * len(WEIGHTS)
        for claim in self.claims.values():
            total = [a + b for a, b in zip(total, claim, strict=True)]
        return total

    def left(self, workloads: Collection[str]) -> list[float]:
        """Replicas that all others leave to these."""
        left = [float(self.most)] * len(WEIGHTS)
        for name, claim in self.claims.items():
            if name not in workloads:
                work_s = self.work_s[name]
                left = [max(a - b * work_s, 0.0) for a, b in zip(left, claim, strict=True)]
        return left


@dataclass(frozen=True, slots=True)
class _Demand:
    """Of one workload."""

    forecast: Forecast
    rps: tuple[float, ...]
    """For each share, with what has piled up."""
    slo: Slo
    home: tuple[Candidate, ...]
    fits: bool
    """Whether home carries all of it."""


class Sizing:
    """Of the workloads and endpoints of which enough is known: a forecast, one model, and the
    performance wherever the workload is at home."""

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
        self._endpoints, self._quotes = endpoints, quotes
        self._limits, self._bursting = limits, bursting
        self._places: dict[str, _Place] = {}
        self._backlogs: set[str] = set()
        self._usd: dict[str, tuple[float, str]] = {}
        self._demands: dict[str, _Demand] = {}
        self._unknown: set[str] = set()
        """Endpoints that also serve somebody of whom too little is known."""
        for workload in sorted(catalogue.configuration.workloads, key=_claim):
            forecast, home = forecasts.get(workload.name), catalogue.home(workload.name)
            models = {c.model.name for c in home}
            if forecast is None or len(models) > 1 or any(c.performance is None for c in home):
                self._unknown.update(c.endpoint for c in home)
            else:
                self._fill(workload, forecast, home)

    def home_replicas(self) -> dict[str, int]:
        """By endpoint, what is needed of the owned where their number is not fixed."""
        found = {}
        for endpoint, place in self._places.items():
            pool = place.candidate.pool
            is_fixed = pool.min_replicas in (0, pool.max_replicas)
            if endpoint not in self._unknown and not is_fixed:
                found[endpoint] = self._needed_at(place) if place.claims else 0
        return found

    def _needed_at(self, place: _Place) -> int:
        nothing = [0.0] * len(WEIGHTS)
        return _fewest(place.model(), place.rps(), nothing, place.most)

    def rented_replicas(self, workloads: Sequence[str], candidate: Candidate) -> int | None:
        """Of one endpoint, beside what all these workloads have at home. None where it is not
        known."""
        demands = [self._demands[w] for w in workloads if w in self._demands]
        if candidate.performance is None or len(demands) < len(workloads):
            return None
        bursting = any(w in self._bursting for w in workloads)
        if not bursting and all(demand.fits for demand in demands):
            return 0
        state = self._endpoints.get(candidate.endpoint, UNKNOWN)
        rps, mix = [(state.waiting + state.queued) / CLEAR_S] * len(WEIGHTS), _Mix()
        for demand in demands:
            mix.add(demand.forecast, demand.slo)
            rps = [a + b for a, b in zip(rps, demand.rps, strict=True)]
        model = mix.model(candidate)
        home = self._home(workloads, demands, mix, model.work_s)
        limit = self._limits.get(candidate.endpoint, candidate.pool.max_replicas)
        usd_per_s = self._usd_per_s(candidate)
        if mix.miss_usd is None or usd_per_s is None:
            needed = _fewest(model, rps, home, limit)
        else:
            needed = _worthwhile(model, rps, home, mix.miss_usd, usd_per_s, limit)
        if not needed and bursting:
            part = [RETURN_SHARE * replicas for replicas in home]
            needed = min(_fewest(model, rps, part, limit), 1)
        return needed

    def _home(
        self, workloads: Collection[str], demands: Iterable[_Demand], mix: _Mix, work_s: float
    ) -> list[float]:
        """What others leave them at home, in replicas that take so long for a request."""
        total = [0.0] * len(WEIGHTS)
        own_s: dict[int, float] = {}
        for candidate in {c.endpoint: c for demand in demands for c in demand.home}.values():
            place, speed = self._place(candidate), id(candidate.performance)
            if speed not in own_s:
                own_s[speed] = mix.model(candidate).work_s
            ratio = work_s / own_s[speed]
            total = [a + b * ratio for a, b in zip(total, place.left(workloads), strict=True)]
        return total

    def _fill(self, workload: Workload, forecast: Forecast, home: tuple[Candidate, ...]) -> None:
        backlog_rps = self._backlog_rps(workload, home)
        left = rps = [rps + backlog_rps for rps in forecast.rps]
        for candidate in sorted(home, key=self._by_usd):
            place = self._place(candidate)
            if not any(left):
                continue
            place.add(workload, forecast)
            before = place.rps()
            most = self._most(place, max(map(sum, zip(left, before, strict=True))))
            taken = [
                min(each, max(most - others, 0.0))
                for each, others in zip(left, before, strict=True)
            ]
            place.claims[workload.name] = taken
            left = [each - got for each, got in zip(left, taken, strict=True)]
        self._demands[workload.name] = _Demand(
            forecast, tuple(rps), workload.slo, home, not any(left)
        )
        if workload.burst is None and any(left):
            self._crowd(workload.name, home, left)

    def _most(self, place: _Place, wanted_rps: float) -> float:
        """Requests a second that it carries, or all that are wanted of it."""
        model = place.model()
        if model.late_share(wanted_rps, place.most) <= PLANNED_LATE:
            return wanted_rps
        return model.most_rps(place.most, PLANNED_LATE)

    def _crowd(self, workload: str, home: Iterable[Candidate], rps: Sequence[float]) -> None:
        """What cannot leave is at home also where it is late."""
        places = [self._places[c.endpoint] for c in home]
        replicas = sum(place.most for place in places)
        for place in places:
            share = place.most / max(replicas, 1)
            claim = place.claims[workload]
            place.claims[workload] = [a + share * b for a, b in zip(claim, rps, strict=True)]

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
            # A pool that may have none is there for bursts alone.
            most = candidate.pool.max_replicas if candidate.pool.min_replicas else 0
            most = min(most, self._limits.get(candidate.endpoint, most))
            place = self._places[candidate.endpoint] = _Place(candidate, most)
        return place

    def _usd_per_s(self, candidate: Candidate) -> float | None:
        """Of a replica."""
        quote = self._quotes.get(candidate.pool.name)
        if quote is None:
            return None
        return quote.usd_per_gpu_hour * candidate.pool.gpus_per_replica / 3600

    def _by_usd(self, candidate: Candidate) -> tuple[float, str]:
        """What its work costs, for an order of places."""
        known = self._usd.get(candidate.endpoint)
        if known is None:
            usd_per_s, performance = self._usd_per_s(candidate), candidate.performance
            assert performance is not None
            usd = float("inf") if usd_per_s is None else usd_per_s / performance.decode_tokens_per_s
            known = self._usd[candidate.endpoint] = usd, candidate.endpoint
        return known


def _claim(workload: Workload) -> tuple[bool, int, str]:
    return workload.burst is not None, -workload.priority, workload.name


def _mean(rps: Sequence[float]) -> float:
    return sum(weight * each for weight, each in zip(WEIGHTS, rps, strict=True))


def _late_rps(
    model: ReplicaModel, rps: Sequence[float], home: Sequence[float], replicas: int
) -> float:
    return sum(
        weight * each * model.late_share(each, replicas + besides)
        for weight, each, besides in zip(WEIGHTS, rps, home, strict=True)
    )


def _fewest(model: ReplicaModel, rps: Sequence[float], home: Sequence[float], most: int) -> int:
    """Replicas with which few enough are late."""
    allowed = PLANNED_LATE * _mean(rps)

    def suffice(replicas: int) -> bool:
        late = 0.0
        for share in reversed(range(len(WEIGHTS))):
            share_late = model.late_share(rps[share], replicas + home[share])
            late += WEIGHTS[share] * rps[share] * share_late
            if late > allowed:
                return False
            if share_late < NONE_LATE:
                # Lower rates are less late.
                break
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


def _worthwhile(
    model: ReplicaModel,
    rps: Sequence[float],
    home: Sequence[float],
    miss_usd: float,
    usd_per_s: float,
    most: int,
) -> int:
    """Replicas for which they and what they leave late cost the least together. What is more than
    all of them carry is missed whatever is rented, and no reason to leave the rest late."""
    carried = [model.most_rps(most + besides, OVERLOADED_LATE) for besides in home]
    rps = [min(pair) for pair in zip(rps, carried, strict=True)]
    best, least_usd_per_s = 0, float("inf")
    for replicas in range(most + 1):
        late_usd_per_s = miss_usd * _late_rps(model, rps, home, replicas)
        if replicas * usd_per_s + late_usd_per_s < least_usd_per_s:
            best, least_usd_per_s = replicas, replicas * usd_per_s + late_usd_per_s
        if late_usd_per_s < usd_per_s:
            # None more can avert what it costs.
            break
    return best
