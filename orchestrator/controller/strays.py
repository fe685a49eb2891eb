"""What bears our mark in a cluster and has no place in the rules: found, waited for, given back."""

from dataclasses import dataclass, replace

from orchestrator.controller.traffic import Traffic
from orchestrator.pools.actuator import Unowned
from orchestrator.signals.engine import EngineMetrics


@dataclass(frozen=True, slots=True)
class Stray:
    cluster: str
    found: Unowned
    since_s: float
    told_with: int
    """The first snapshot version after it was found: whoever has it sends nothing there."""

    @property
    def subject(self) -> str:
        return self.found.endpoint or f"{self.cluster}/{self.found.name}"


class Strays:
    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Stray] = {}

    def known(self) -> list[Stray]:
        return list(self._known.values())

    def follow(
        self, unowned: dict[str, list[Unowned]], next_version: int, now_s: float
    ) -> list[Stray]:
        """What was seen last, by cluster. Returns those that are new."""
        seen = {
            (cluster, found.name): Stray(cluster, found, now_s, next_version)
            for cluster, all_found in unowned.items()
            for found in all_found
        }
        new = [stray for key, stray in seen.items() if key not in self._known]
        self._known = {
            key: replace(self._known.get(key, stray), found=stray.found)
            for key, stray in seen.items()
        }
        return new

    def idle(
        self,
        traffic: Traffic,
        metrics: dict[str, EngineMetrics],
        silence_s: float,
        now_s: float,
    ) -> list[Stray]:
        """Those that nobody uses and nobody will. `metrics` is by the engines' URLs; an engine that
        has not said anything for `silence_s` is dead."""
        return [s for s in self._known.values() if _is_idle(s, traffic, metrics, silence_s, now_s)]


def _is_idle(
    stray: Stray,
    traffic: Traffic,
    metrics: dict[str, EngineMetrics],
    silence_s: float,
    now_s: float,
) -> bool:
    if not traffic.all_have(stray.told_with, stray.since_s, now_s):
        return False
    found = stray.found
    if found.endpoint is not None and traffic.inflight(found.endpoint, now_s):
        return False
    if not found.replicas.ready + found.replicas.leaving:
        return True
    said = metrics.get(found.url or "")
    if said is None:
        return now_s - stray.since_s > silence_s
    return said.running + said.waiting == 0
