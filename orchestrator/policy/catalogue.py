"""The configuration, indexed the way decisions ask for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import (
    Cluster,
    Configuration,
    Performance,
    Pool,
    Variant,
    Workload,
    Zone,
)
from orchestrator.policy.arrays import Ints
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.selection import Selection, select


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
        """Every (pool, variant), by endpoint name `pool/variant`, numbered in this order."""
        found: dict[str, Candidate] = {}
        for model in self.configuration.models:
            for variant in model.variants:
                for pool_name in variant.pools:
                    pool = self.pools[pool_name]
                    cluster = self.clusters[pool.cluster]
                    endpoint = f"{pool.name}/{variant.name}"
                    zone = self.zones[cluster.zone]
                    performance = _performance(variant, pool)
                    found[endpoint] = Candidate(
                        endpoint, len(found), model, variant, pool, cluster, zone, performance
                    )
        return found

    @cached_property
    def by_model(self) -> dict[str, tuple[Candidate, ...]]:
        """In the order of endpoint names, which is the order in which ties are broken."""
        found: dict[str, list[Candidate]] = {m.name: [] for m in self.configuration.models}
        for candidate in sorted(self.candidates.values(), key=lambda c: c.endpoint):
            found[candidate.model.name].append(candidate)
        return {model: tuple(candidates) for model, candidates in found.items()}

    @cached_property
    def by_pool(self) -> dict[str, tuple[Candidate, ...]]:
        found: dict[str, list[Candidate]] = {name: [] for name in self.pools}
        for candidate in self.candidates.values():
            found[candidate.pool.name].append(candidate)
        return {pool: tuple(candidates) for pool, candidates in found.items()}

    def selection(
        self, workload: str, model: str, data_class: DataClass, smaller_variant: bool
    ) -> Selection:
        """Where such requests may ever run. Raises KeyError for a name that is not configured."""
        key = (workload, model, data_class, smaller_variant)
        selection = self._selections.get(key)
        if selection is None:
            spec = self.workloads[workload]
            selection = select(spec, data_class, smaller_variant, self.by_model[model])
            self._selections[key] = selection
        return selection

    @cached_property
    def _selections(self) -> dict[tuple[str, str, DataClass, bool], Selection]:
        """Filled as they are asked for; bounded by the configuration."""
        return {}

    @cached_property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Of the scores, by their names."""
        weights = self.configuration.policy.weights
        return tuple((name, getattr(weights, name)) for name in type(weights).model_fields)

    def counts(self, by_endpoint: Mapping[str, int]) -> Ints:
        """By candidate number. Endpoints that are not configured are left out."""
        counts = np.zeros(len(self.candidates), np.int64)
        for endpoint, count in by_endpoint.items():
            if endpoint in self.candidates:
                counts[self.candidates[endpoint].number] = count
        return counts

    def burst_pools(self, workload: str) -> tuple[str, ...]:
        """The pools that take part for this workload only while it bursts."""
        burst = self.workloads[workload].burst
        return tuple(burst.pools) if burst else ()

    def home(self, workload: str) -> tuple[Candidate, ...]:
        """Where this workload runs when it does not burst."""
        return self._homes[workload]

    @cached_property
    def _homes(self) -> dict[str, tuple[Candidate, ...]]:
        return {
            workload: tuple(
                candidate
                for candidate in self._places(workload)
                if candidate.pool.name not in self.burst_pools(workload)
            )
            for workload in self.workloads
        }

    def burst_candidate(self, workload: str, pool: str) -> Candidate | None:
        """The variant that a workload's burst deploys on a pool: the best one of its models. None
        when the pool runs nothing that the workload may use, or the rules have no such burst."""
        return self._burst_candidates.get((workload, pool))

    @cached_property
    def _burst_candidates(self) -> dict[tuple[str, str], Candidate]:
        found: dict[tuple[str, str], Candidate] = {}
        for workload in self.workloads:
            for candidate in self._places(workload):
                place = (workload, candidate.pool.name)
                best = found.setdefault(place, candidate)
                if _rank(candidate) > _rank(best):
                    found[place] = candidate
        return found

    def _places(self, workload: str) -> Iterator[Candidate]:
        """Of its own class and quality, in any phase."""
        spec = self.workloads[workload]
        for model in spec.models:
            yield from self.selection(workload, model, spec.data_class, False).candidates


def _rank(candidate: Candidate) -> tuple[float, str]:
    return candidate.variant.quality, candidate.endpoint


def _performance(variant: Variant, pool: Pool) -> Performance | None:
    return next((p for p in variant.performance if p.accelerator == pool.accelerator), None)
