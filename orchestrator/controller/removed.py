"""Clusters that the rules have no more: watched until nothing of ours is left there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.config.spec import Cluster

EMPTY_S = 120
"""What was ordered before the rules changed may come for so long."""
SILENT_S = 86_400
"""A removed cluster that says nothing for so long is taken to be gone, with all that it had."""


def watched(specs: Mapping[str, Cluster], rules: Mapping[str, Cluster]) -> dict[str, Cluster]:
    """Those of the rules, and of the others what may hold something of ours. One that the rules
    have by another name is not another one: what they run there is not left over."""
    places = {place for spec in rules.values() for place in _places(spec)}
    return {
        name: spec
        for name, spec in specs.items()
        if name not in rules and spec.kind != "openai" and not places & set(_places(spec))
    } | dict(rules)


def _places(spec: Cluster) -> list[str]:
    """A namespace in Kubernetes may hold several: there each bears its name."""
    if spec.kind == "kuberay":
        return []
    return [urlsplit(url).netloc for url in (spec.url, spec.dashboard_url) if url]


@dataclass(slots=True)
class _Watched:
    heard_s: float
    empty_since_s: float | None = None


class Removed:
    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    def follow(self, names: Iterable[str], now_s: float) -> None:
        """These are watched and no others."""
        self._watched = {name: self._watched.get(name, _Watched(now_s)) for name in names}

    def seen(self, name: str, holds_ours: bool, now_s: float) -> None:
        """It answered; nothing where the rules have it."""
        watched = self._watched.get(name)
        if watched is None:
            return
        watched.heard_s = now_s
        if holds_ours:
            watched.empty_since_s = None
        elif watched.empty_since_s is None:
            watched.empty_since_s = now_s

    def over(self, now_s: float) -> dict[str, str]:
        """Those that need not be watched any longer, and why."""
        found = {}
        for name, watched in self._watched.items():
            empty_s = watched.empty_since_s
            if now_s - watched.heard_s > SILENT_S:
                found[name] = "it has not answered for a day"
            elif empty_s is not None and now_s - empty_s > EMPTY_S:
                found[name] = "nothing of ours is left there"
        return found
