"""A small company, and sweeps of it made from what its exporters answer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.config.spec import Configuration
from orchestrator.policy.catalogue import Catalogue
from orchestrator.signals import dcgm, engine
from orchestrator.signals.reading import Reading
from orchestrator.zombies.find import find
from orchestrator.zombies.finding import Finding, Note, Notes
from orchestrator.zombies.sweep import Endpoint, Engine, Instance, Sweep
from tests.worlds import quote, small
from tests.zombies.expositions import Card, Vllm
from tests.zombies.expositions import dcgm as exporter

HOME, CLOUD, TUNED, RENTED = (
    "home-gpu/m-fp16",
    "cloud-gpu/m-fp16",
    "home-gpu/m-law",
    "provider/m-api",
)
SWEEP_S = 30
IDLE_S, GHOST_S, ORPHAN_S, ADAPTER_S = 600, 300, 120, 600
PENDING_S = 180
"""Three times what the pools' replicas usually take."""
START_S = 1_764_300_000.0


def catalogue(**zombies: Any) -> Catalogue:
    c = small().configuration.model_dump()
    c["zones"].append({"name": "provider", "jurisdiction": "EU", "max_data_class": "internal"})
    c["clusters"].append(
        {"name": "api", "zone": "provider", "kind": "openai", "url": "https://api.tokens.example"}
    )
    home, cloud = c["pools"]
    home |= {"accelerator": "H100", "max_replicas": 4, "owner": "gpu-team@company.example"}
    cloud |= {"max_replicas": 4}
    tokens = {"input_usd_per_million": 1, "output_usd_per_million": 3}
    c["pools"].append(
        home | {"name": "provider", "cluster": "api", "owner": None, "price": {"tokens": tokens}}
    )
    (m,) = c["models"]
    base = m["variants"][0]
    m["variants"].append(base | {"name": "m-api", "pools": ["provider"]})
    law = {"name": "m-law", "lora": "org/law", "served_name": "law", "pools": ["home-gpu"]}
    c["models"].append({"name": "law", "variants": [base | law]})
    c["workloads"][0]["models"] = ["m", "law"]
    c["zombies"] = {
        "sweep_s": SWEEP_S,
        "idle_after_s": IDLE_S,
        "ghost_after_s": GHOST_S,
        "orphan_after_s": ORPHAN_S,
        "adapter_after_s": ADAPTER_S,
        **zombies,
    }
    return Catalogue(Configuration.model_validate(c), "v1")


CATALOGUE = catalogue()


@dataclass(frozen=True)
class Frame:
    """What is there at one sweep; None is a source that does not answer."""

    endpoints: Mapping[str, Endpoint | None] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """`/metrics` by endpoint and engine."""
    models: Mapping[str, str | None] = field(default_factory=dict)
    """`/v1/models` by engine."""
    instances: tuple[Instance, ...] | None = ()
    gpus: str | None = None
    """What the exporter of cluster `away` answers."""
    known: frozenset[str] = frozenset(CATALOGUE.candidates)
    publishes: bool = True
    clock_s: float = 0
    """How far our clock is off."""


def endpoint(ready: int = 0, **about: Any) -> Endpoint:
    """As it is seen now; its gateways know of no request."""
    about = {"target": ready + about.get("starting", 0), "open_requests": 0, "served": 0} | about
    return Endpoint(observed_s=0, ready=ready, **about)


class Watcher:
    """Keeps what a source said last, with its age, and looks every `SWEEP_S`."""

    def __init__(self, rules: Catalogue = CATALOGUE) -> None:
        self.rules = rules
        self.notes: Notes = {}
        self._metrics: dict[str, Reading[engine.EngineMetrics]] = {}
        self._models: dict[str, Reading[frozenset[str]]] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._instances: tuple[Instance, ...] = ()
        self._gpus: Reading[list[dcgm.Gpu]] | None = None
        self._known: Reading[frozenset[str]] = Reading(frozenset(), 0)
        self._home = Vllm(running=3, stopped=4000)

    def run(self, frames: Iterable[Frame]) -> Iterator[list[Finding]]:
        for number, frame in enumerate(frames):
            yield self.look(frame, START_S + number * SWEEP_S)

    def look(self, frame: Frame, true_s: float) -> list[Finding]:
        now_s = true_s + frame.clock_s
        findings, self.notes = find(self.sweep(frame, now_s), self._restored(), self.rules, now_s)
        return findings

    def _restored(self) -> Notes:
        """As from the disk: a controller may be another one at every sweep."""
        return {k: Note.model_validate_json(n.model_dump_json()) for k, n in self.notes.items()}

    def sweep(self, frame: Frame, now_s: float) -> Sweep:
        self._home.answer(7)
        engines = {HOME: {HOME: self._home.text()}, **frame.engines}
        endpoints = {HOME: endpoint(ready=1, standby=1, served=0), **frame.endpoints}
        for name, seen in endpoints.items():
            # Engines answer for themselves, whatever has become of their cluster.
            if seen is not None:
                self._endpoints[name] = replace(seen, observed_s=now_s)
            last = self._endpoints.get(name, endpoint())
            found = self._engines(engines.get(name, {}), frame, last, now_s)
            self._endpoints[name] = replace(last, engines=found)
        if frame.instances is not None:
            self._instances = tuple(replace(i, observed_s=now_s) for i in frame.instances)
        if frame.gpus is not None:
            self._gpus = Reading(dcgm.parse(frame.gpus), now_s)
        if frame.publishes:
            self._known = Reading(frame.known, now_s)
        busy = Card(3, "NVIDIA H100 80GB HBM3", "home-1", util=97, used=71000, total=81559)
        gpus = [("home", Reading(dcgm.parse(exporter(busy)), now_s))]
        if self._gpus is not None:
            gpus.append(("away", self._gpus))
        return Sweep(
            known=self._known,
            endpoints=dict(self._endpoints),
            instances=self._instances,
            gpus=tuple(gpus),
            quotes={"home-gpu": quote(3.0), "cloud-gpu": quote(2.0, valid_s=-1)},
        )

    def _engines(
        self, texts: Mapping[str, str | None], frame: Frame, seen: Endpoint, now_s: float
    ) -> tuple[Engine, ...]:
        for name, text in texts.items():
            if text is not None:
                self._metrics[name] = Reading(engine.parse(text), now_s)
            models = frame.models.get(name)
            if models is not None:
                self._models[name] = Reading(engine.loaded_adapters(models), now_s)
        each = 1 if len(texts) > 1 else max(1, seen.ready)
        return tuple(
            Engine(name, each, self._metrics.get(name), self._models.get(name)) for name in texts
        )
