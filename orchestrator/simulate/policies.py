"""What decides on capacity in a simulation: the planner that ships."""

from dataclasses import dataclass, field
from typing import Protocol

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
    _decided: Decided = field(default_factory=Decided)

    def plan(self, seen: Observation, version: int, now_s: float) -> Plan:
        planned = plan(self.catalogue, seen, self._decided, now_s)
        draining = {
            workload: self._decided.draining_published.get(workload, version)
            for workload, state in planned.bursts.items()
            if state.phase is BurstPhase.DRAINING
        }
        self._decided = Decided(planned.bursts, planned.targets, draining, planned.provisions)
        return planned
