"""What decides on capacity in a simulation: the planner that ships."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from orchestrator.capacity.forecast import forecaster_of
from orchestrator.capacity.planner import Decided, Observation, Plan, plan
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase


class CapacityPolicy(Protocol):
    """One a run: it may remember."""

    name: str

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        """Burst states and replica targets from here on. `version`: of the snapshot that will tell
        the gateway of them."""
        ...


@dataclass
class Planner:
    """As the controller drives it."""

    catalogue: Catalogue
    name: str = "planner"
    forecast: bool = True
    """False: the load stays as it is."""
    _decided: Decided = field(default_factory=Decided)

    def __post_init__(self) -> None:
        self._forecaster = forecaster_of(self.catalogue, is_steady=not self.forecast)

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        self._forecaster.observe(seen.load, now_s)
        seen = replace(seen, forecasts=self._forecaster.forecasts())
        planned = plan(self.catalogue, seen, self._decided, now_s)
        draining = {
            workload: self._decided.draining_published.get(workload, version)
            for workload, state in planned.bursts.items()
            if state.phase is BurstPhase.DRAINING
        }
        self._decided = Decided(
            planned.bursts,
            planned.targets,
            draining,
            planned.provisions,
            excess=planned.excess,
        )
        return planned
