"""`probes.yaml`: requests that a platform team wants to see placed as it expects.

A test of the rules, not one of them: it is no part of the version, so that a better test changes
nothing in a running fleet.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.data_class import DataClass
from orchestrator.config.inherit import Place
from orchestrator.config.load import PROBES, ConfigurationError, parse, yaml_files
from orchestrator.config.reading import Problem, Reading
from orchestrator.config.spec import Configuration, DataClassLabel, Name, Spec
from orchestrator.config.spec.base import Usd

Names = Annotated[
    list[Name],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]


class ProbeRequest(Spec):
    workload: Name
    model: str
    data_class: DataClassLabel = Field(default=DataClass.PUBLIC, description="that the caller says")
    max_tokens: int = Field(default=0, ge=0)
    content: str | None = Field(default=None, description="text that is classified first")


class Fleet(Spec):
    """What the fleet is taken to be. Without a price of their own, pools have one that every
    workload's ceiling allows."""

    situation: Literal["at_rest", "all_ready", "home_down"] = Field(
        default="at_rest",
        description="at_rest: the replicas that always run; all_ready: all that may run; "
        "home_down: all but those at home of the workload, which bursts to its first pool",
    )
    down: list[Name] = Field(default=[], description="pools without a replica")
    bursting: dict[Name, Name] = Field(
        default={}, description="workload: pool; the pool is ready, and the home pools are full"
    )
    usd_per_gpu_hour: dict[Name, Usd] = Field(default={}, description="by pool")


class Expectation(Spec):
    """At least one of these."""

    zone: Names | None = Field(default=None, description="one zone, or any of a list")
    pool: Name | None = None
    variant: Name | None = None
    denied: Literal["model_not_found", "residency", "context_length", "no_capacity"] | None = None
    data_class: DataClassLabel | None = Field(default=None, description="the effective one")
    rejected: dict[Name, str] = Field(
        default={}, description="pool: the rule that rejects all that the model has there"
    )
    never_zones: list[Name] = Field(
        default=[], description="where no state of the fleet would ever let it run"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(
                f"nothing is expected; give one of {', '.join(type(self).model_fields)}"
            )
        if self.denied and (self.zone or self.pool or self.variant):
            raise ValueError("a request that is denied runs nowhere; leave one of both out")
        return self


class Probe(Spec):
    name: Annotated[str, Field(min_length=1)]
    request: ProbeRequest
    fleet: Fleet = Fleet()
    expect: Expectation


class ProbeFile(Spec):
    probes: list[Probe] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class PlacedProbe:
    """A probe that knows where it stands."""

    probe: Probe
    number: int
    reading: Reading

    def problem(self, field: Place, message: str) -> Problem:
        """At the line of the field, such as ("expect", "zone")."""
        return self.reading.problem(
            ("probes", self.number, *field), f"probe '{self.probe.name}': {message}"
        )


def load_probes(directory: Path, configuration: Configuration) -> list[PlacedProbe]:
    """Those of a configuration directory; none without a `probes.yaml`.

    Raises ConfigurationError, also for a name that the configuration does not have.
    """
    files = [f for f in yaml_files(directory.absolute()) if f.stem == PROBES]
    if not files:
        return []
    reading = Reading()
    for file in files:
        reading.read(file)
    if reading.problems:
        raise ConfigurationError(reading.problems)
    probes = parse(reading, ProbeFile).probes
    placed = [PlacedProbe(probe, number, reading) for number, probe in enumerate(probes)]
    problems = [*_duplicates(placed)]
    for one in placed:
        problems += (one.problem(*finding) for finding in _unknown(one.probe, configuration))
    if problems:
        raise ConfigurationError(problems)
    return placed


def _duplicates(placed: Iterable[PlacedProbe]) -> Iterator[Problem]:
    seen: set[str] = set()
    for one in placed:
        if one.probe.name in seen:
            yield one.problem(("name",), "has the name of an earlier one; rename it")
        seen.add(one.probe.name)


def _unknown(probe: Probe, c: Configuration) -> Iterator[tuple[Place, str]]:
    workloads = {w.name: w.burst.pools if w.burst else [] for w in c.workloads}
    known = {
        "workload": list(workloads),
        "pool": [p.name for p in c.pools],
        "zone": [z.name for z in c.zones],
        "variant": [v.name for m in c.models for v in m.variants],
    }
    expect, fleet = probe.expect, probe.fleet
    used: list[tuple[str, Place, Iterable[str]]] = [
        ("workload", ("request", "workload"), [probe.request.workload]),
        ("pool", ("fleet", "down"), fleet.down),
        ("workload", ("fleet", "bursting"), fleet.bursting),
        ("pool", ("fleet", "usd_per_gpu_hour"), fleet.usd_per_gpu_hour),
        ("zone", ("expect", "zone"), expect.zone or ()),
        ("pool", ("expect", "pool"), [expect.pool] if expect.pool else ()),
        ("variant", ("expect", "variant"), [expect.variant] if expect.variant else ()),
        ("pool", ("expect", "rejected"), expect.rejected),
        ("zone", ("expect", "never_zones"), expect.never_zones),
    ]
    for kind, place, names in used:
        for name in names:
            if name not in known[kind]:
                yield (
                    place,
                    f"{kind} '{name}' is not defined; defined are: {', '.join(known[kind])}",
                )
    for workload, pool in fleet.bursting.items():
        pools = workloads.get(workload, [pool])
        if pool not in pools:
            yield (
                ("fleet", "bursting", workload),
                f"workload '{workload}' never bursts to '{pool}'; "
                f"it may burst to: {', '.join(pools) or 'none'}",
            )
