"""The policies of the table, and the planner with parts of it taken away."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.baselines import BASELINES
from orchestrator.simulate.policies import CapacityPolicy, Planner

PLANNER = "planner"
Make = Callable[[Catalogue], CapacityPolicy]


@dataclass(frozen=True)
class Contender:
    name: str
    make: Make
    change: Callable[[Configuration], Configuration] = lambda configuration: configuration
    """Of what it is given to work with."""


@dataclass
class _Blind:
    """A planner to whom every rented pool costs the same, whatever the market says: the mean of the
    first prices."""

    planner: CapacityPolicy
    rented: frozenset[str]
    name: str = "planner without prices"
    _usd: float | None = None

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        offered = [quote for pool, quote in seen.quotes.items() if pool in self.rented]
        if self._usd is None and offered:
            self._usd = fmean(quote.usd_per_gpu_hour for quote in offered)
        flat = {
            pool: quote.model_copy(update={"usd_per_gpu_hour": self._usd})
            if pool in self.rented
            else quote
            for pool, quote in seen.quotes.items()
        }
        return self.planner.plan(replace(seen, quotes=flat), version, now_s)


def _without_forecast(catalogue: Catalogue) -> CapacityPolicy:
    return Planner(catalogue, forecast=False)


def _without_prices(catalogue: Catalogue) -> CapacityPolicy:
    rented = {pool for name in catalogue.workloads for pool in catalogue.burst_pools(name)}
    return _Blind(Planner(catalogue), frozenset(rented))


def _without_spot(configuration: Configuration) -> Configuration:
    raw = configuration.model_dump(mode="json")
    spot = {pool["name"] for pool in raw["pools"] if pool["capacity_type"] == "spot"}
    raw["pools"] = [pool for pool in raw["pools"] if pool["name"] not in spot]
    named = [v for model in raw["models"] for v in model["variants"]]
    named += [w["burst"] for w in raw["workloads"] if w["burst"]]
    for of in named:
        of["pools"] = [pool for pool in of["pools"] if pool not in spot]
    return Configuration.model_validate(raw)


def _with_standby(configuration: Configuration) -> Configuration:
    """One replica of the spot pool stands by."""
    raw = configuration.model_dump(mode="json")
    for pool in raw["pools"]:
        if pool["capacity_type"] == "spot":
            pool["min_replicas"] = 1
    return Configuration.model_validate(raw)


COMPARED = (Contender(PLANNER, Planner), *(Contender(*item) for item in BASELINES.items()))
ABLATED = (
    Contender(PLANNER, Planner),
    Contender("without forecast", _without_forecast),
    Contender("without prices", _without_prices),
    Contender("without spot", Planner, _without_spot),
    Contender("with a warm standby", Planner, _with_standby),
)
