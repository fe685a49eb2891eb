"""The configuration, indexed the way decisions ask for it."""

from dataclasses import dataclass
from functools import cached_property

from orchestrator.config.spec import (
    Cluster,
    Configuration,
    Model,
    Pool,
    Variant,
    Workload,
    Zone,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place where a model can run: a variant on a pool."""

    endpoint: str
    model: Model
    variant: Variant
    pool: Pool
    cluster: Cluster
    zone: Zone

    @property
    def url(self) -> str:
        """Base URL of the OpenAI API of this (pool, variant), without `/v1`."""
        if self.cluster.kind == "openai":
            return self.cluster.url.rstrip("/")
        return f"{self.cluster.url.rstrip('/')}{self.route_prefix}"

    @property
    def route_prefix(self) -> str:
        return f"/pools/{self.endpoint}"


@dataclass(frozen=True)
class Catalogue:
    """A configuration and its version; every look-up that a decision needs is one dict access."""

    configuration: Configuration
    version: str

    @cached_property
    def workloads(self) -> dict[str, Workload]:
        return {w.name: w for w in self.configuration.workloads}

    @cached_property
    def pools(self) -> dict[str, Pool]:
        return {p.name: p for p in self.configuration.pools}

    @cached_property
    def clusters(self) -> dict[str, Cluster]:
        return {c.name: c for c in self.configuration.clusters}

    @cached_property
    def zones(self) -> dict[str, Zone]:
        return {z.name: z for z in self.configuration.zones}

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """Every (pool, variant), by endpoint name `pool/variant`."""
        found = {}
        for model in self.configuration.models:
            for variant in model.variants:
                for pool_name in variant.pools:
                    pool = self.pools[pool_name]
                    cluster = self.clusters[pool.cluster]
                    endpoint = f"{pool.name}/{variant.name}"
                    found[endpoint] = Candidate(
                        endpoint, model, variant, pool, cluster, self.zones[cluster.zone]
                    )
        return found

    @cached_property
    def by_model(self) -> dict[str, tuple[Candidate, ...]]:
        return {
            model.name: tuple(c for c in self.candidates.values() if c.model.name == model.name)
            for model in self.configuration.models
        }

    @cached_property
    def by_pool(self) -> dict[str, tuple[Candidate, ...]]:
        return {
            name: tuple(c for c in self.candidates.values() if c.pool.name == name)
            for name in self.pools
        }

    def burst_pools(self, workload: str) -> tuple[str, ...]:
        """The pools that take part for this workload only while it bursts."""
        burst = self.workloads[workload].burst
        return tuple(burst.pools) if burst else ()

    def home(self, workload: str) -> list[Candidate]:
        """Where this workload runs when it does not burst."""
        spec = self.workloads[workload]
        away = self.burst_pools(workload)
        return [
            c
            for c in self.candidates.values()
            if c.model.name in spec.models
            and c.zone.name in spec.allowed_zones
            and c.zone.max_data_class >= spec.data_class
            and c.pool.name not in away
        ]
