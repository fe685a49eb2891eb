"""What is well formed and named, and yet can never work: rules that exclude each other.

Assumes that every name is defined and defined once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from orchestrator.config.spec import (
    Cluster,
    Configuration,
    Model,
    Pool,
    Schedule,
    Variant,
    Workload,
    Zone,
)

Place = tuple[str | int, ...]
Finding = tuple[Place, str]


def contradictions(c: Configuration) -> Iterator[Finding]:
    """Each with its place in the document and its mend."""
    places = _Places(c)
    yield from _pools(c, places)
    yield from _variants(c, places)
    for number, workload in enumerate(c.workloads):
        yield from _Rules(("workloads", number), workload, places).findings()


class _Places:
    def __init__(self, c: Configuration) -> None:
        self.zones = {z.name: z for z in c.zones}
        self.clusters = {x.name: x for x in c.clusters}
        self.pools = {p.name: p for p in c.pools}
        self.models = {m.name: m for m in c.models}

    def cluster(self, pool: str) -> Cluster:
        return self.clusters[self.pools[pool].cluster]

    def zone(self, pool: str) -> Zone:
        return self.zones[self.cluster(pool).zone]


def _pools(c: Configuration, places: _Places) -> Iterator[Finding]:
    for number, pool in enumerate(c.pools):
        if pool.price.tokens is not None and places.cluster(pool.name).kind != "openai":
            yield (
                ("pools", number, "price", "tokens"),
                f"cluster '{pool.cluster}' is ours and costs GPU-hours; give a price for those",
            )


def _variants(c: Configuration, places: _Places) -> Iterator[Finding]:
    for m, model in enumerate(c.models):
        for v, variant in enumerate(model.variants):
            at: Place = ("models", m, "variants", v)
            yield from _performance(at, variant, places)
            ours = [pool for pool in variant.pools if places.cluster(pool).kind != "openai"]
            if variant.served_name is not None and variant.lora is None and ours:
                yield (
                    (*at, "served_name"),
                    f"pool '{ours[0]}' is ours and serves '{variant.name}' under its own name; "
                    "leave served_name out, or give a lora",
                )


def _performance(at: Place, variant: Variant, places: _Places) -> Iterator[Finding]:
    accelerators = {places.pools[pool].accelerator for pool in variant.pools}
    seen: set[str] = set()
    for number, performance in enumerate(variant.performance):
        name = performance.accelerator
        place = (*at, "performance", number, "accelerator")
        if name in seen:
            yield place, f"{name} has its figures above already; keep one of the two"
        elif name not in accelerators:
            yield (
                place,
                f"no pool of '{variant.name}' has {name}; they have: "
                f"{', '.join(sorted(accelerators))}",
            )
        seen.add(name)


@dataclass(frozen=True)
class _Rules:
    """Of one workload."""

    at: Place
    workload: Workload
    places: _Places

    def findings(self) -> Iterator[Finding]:
        yield from self._markers()
        yield from self._preferred()
        nowhere = list(self._nowhere()) + list(self._too_good())
        yield from nowhere
        if not nowhere:
            yield from self._homeless_models()
        yield from self._fallback()
        yield from self._burst()

    @cached_property
    def _models(self) -> list[Model]:
        return [self.places.models[name] for name in self.workload.models]

    @cached_property
    def _holding(self) -> list[Zone]:
        """Allowed zones that may hold its data."""
        zones = [self.places.zones[name] for name in self.workload.allowed_zones]
        return [z for z in zones if z.max_data_class >= self.workload.data_class]

    @cached_property
    def _lawful(self) -> list[Zone]:
        wanted = self.workload.jurisdictions
        return [z for z in self._holding if not wanted or z.jurisdiction in wanted]

    @cached_property
    def _possible(self) -> list[Zone]:
        """The zones where it may run."""
        return [z for z in self._lawful if not self._lacking(z)]

    def _lacking(self, zone: Zone) -> list[str]:
        return [x for x in self.workload.certifications if x not in zone.certifications]

    def _markers(self) -> Iterator[Finding]:
        seen: set[str] = set()
        for number, marker in enumerate(self.workload.markers):
            if marker.casefold() in seen:
                place = (*self.at, "markers", number)
                yield place, f"'{marker}' is a marker already, in any letter case; keep one"
            seen.add(marker.casefold())

    def _preferred(self) -> Iterator[Finding]:
        for number, name in enumerate(self.workload.preferred_zones):
            if name not in self.workload.allowed_zones:
                place = (*self.at, "preferred_zones", number)
                yield place, f"zone '{name}' is preferred, but not allowed; add it to allowed_zones"

    def _nowhere(self) -> Iterator[Finding]:
        """The first rule that leaves no zone."""
        w, label = self.workload, self.workload.data_class.label
        if not self._holding:
            able = [z.name for z in self.places.zones.values() if z.max_data_class >= w.data_class]
            mend = f"allow {_any_of(able)}" if able else f"raise a zone's max_data_class to {label}"
            yield (
                (*self.at, "data_class"),
                f"no allowed zone may hold the {label} data of workload '{w.name}'; {mend}",
            )
        elif not self._lawful:
            laws = sorted({z.jurisdiction for z in self._holding})
            yield (
                (*self.at, "jurisdictions"),
                f"no allowed zone that may hold {label} data is under {_any_of(w.jurisdictions)}; "
                f"they are under {', '.join(laws)}: allow another zone or add one of these",
            )
        elif not self._possible:
            lacking = "; ".join(f"'{z.name}' lacks {_all(self._lacking(z))}" for z in self._lawful)
            yield (
                (*self.at, "certifications"),
                f"no zone is left that has them all: {lacking}; allow another zone or drop one",
            )

    def _too_good(self) -> Iterator[Finding]:
        best = max((v for m in self._models for v in m.variants), key=lambda v: v.quality)
        if best.quality < self.workload.min_quality:
            yield (
                (*self.at, "min_quality"),
                f"above every variant of its models; the best, '{best.name}', has "
                f"{best.quality:g}: lower it to that",
            )

    def _homeless_models(self) -> Iterator[Finding]:
        """Models that no home pool runs where the workload may run."""
        w = self.workload
        away = w.burst.pools if w.burst else []
        zones = {z.name for z in self._possible}
        for number, model in enumerate(self._models):
            place = (*self.at, "models", number)
            variants = [v for v in model.variants if v.quality >= w.min_quality]
            pools = {pool for variant in variants for pool in variant.pools}
            near = {pool for pool in pools if self.places.zone(pool).name in zones}
            if not variants:
                best = max(v.quality for v in model.variants)
                yield (
                    place,
                    f"no variant of '{model.name}' is as good as min_quality; its best has "
                    f"{best:g}: lower min_quality or drop the model",
                )
            elif not near:
                yield (
                    place,
                    f"no pool that runs '{model.name}' lies where workload '{w.name}' may run, in "
                    f"{_any_of(sorted(zones))}; run it there or drop the model",
                )
            elif near <= set(away):
                yield (
                    place,
                    f"only burst pools run '{model.name}': {', '.join(sorted(near))}; take one out "
                    "of burst.pools or run the model at home",
                )
            elif not any(self.places.pools[pool].min_replicas for pool in near - set(away)):
                yield (
                    place,
                    f"no pool at home always has a replica of '{model.name}', and nothing but a "
                    f"burst scales one up; give {_any_of(sorted(near - set(away)))} a min_replicas "
                    "above 0",
                )

    def _fallback(self) -> Iterator[Finding]:
        smaller, least = self.workload.when_infeasible.min_quality, self.workload.min_quality
        if smaller is not None and smaller >= least:
            yield (
                (*self.at, "when_infeasible", "min_quality"),
                f"not below min_quality, {least:g}, and so without effect; lower it or leave it "
                "out",
            )

    def _burst(self) -> Iterator[Finding]:
        burst, ceiling = self.workload.burst, self.workload.price_ceiling
        if burst is None:
            return
        for number, hours in enumerate(burst.schedule):
            yield from _hours((*self.at, "burst", "schedule", number), hours)
        if ceiling.usd_per_gpu_hour is None and ceiling.usd_per_million_tokens is None:
            place = (*self.at, "burst")
            yield place, "may cost any price; give price_ceiling.usd_per_gpu_hour"
            return
        for number, name in enumerate(burst.pools):
            message = self._forbidden(name) or self._never_paid(self.places.pools[name])
            if message is not None:
                yield (*self.at, "burst", "pools", number), message

    def _forbidden(self, pool: str) -> str | None:
        zone = self.places.zone(pool)
        if zone not in self._holding or zone in self._possible:
            return None
        lacking = _all(self._lacking(zone))
        why = f"lacks {lacking}" if zone in self._lawful else f"is under {zone.jurisdiction}"
        return f"pool '{pool}' lies in zone '{zone.name}', which {why}; take the pool out"

    def _never_paid(self, pool: Pool) -> str | None:
        """Why no burst to this pool can ever start."""
        ceiling, fixed = self.workload.price_ceiling, pool.price.fixed_usd_per_gpu_hour
        per_hour, per_million = ceiling.usd_per_gpu_hour, ceiling.usd_per_million_tokens
        if per_hour is not None and fixed is not None and fixed > per_hour:
            return _too_dear(pool, fixed, per_hour, "GPU-hour")
        if pool.price.tokens is not None:
            if per_million is None:
                return (
                    f"pool '{pool.name}' charges by the token; give "
                    "price_ceiling.usd_per_million_tokens"
                )
            listed = pool.price.tokens
            usd = max(listed.input_usd_per_million, listed.output_usd_per_million)
            return (
                _too_dear(pool, usd, per_million, "million tokens") if usd > per_million else None
            )
        variant = self._burst_variant(pool)
        if per_million is None or variant is None:
            return None
        speed = next((p for p in variant.performance if p.accelerator == pool.accelerator), None)
        if speed is None:
            return (
                f"what a token costs on pool '{pool.name}' is not known, and "
                f"price_ceiling.usd_per_million_tokens asks for it: give '{variant.name}' its "
                f"performance on {pool.accelerator}"
            )
        if fixed is not None:
            usd = fixed * pool.gpus_per_replica / 3600 / speed.decode_tokens_per_s * 1e6
            if usd > per_million:
                return _too_dear(pool, usd, per_million, "million tokens")
        return None

    def _burst_variant(self, pool: Pool) -> Variant | None:
        """What a burst to this pool would start: the best that it runs."""
        fitting = [
            v
            for m in self._models
            for v in m.variants
            if pool.name in v.pools and v.quality >= self.workload.min_quality
        ]
        return max(fitting, key=lambda v: (v.quality, v.name), default=None)


def _hours(at: Place, hours: Schedule) -> Iterator[Finding]:
    if hours.start == hours.end:
        message = f"begins and ends at {hours.start:%H:%M}; for a day write 00:00 to 23:59:59"
        yield at, message


def _too_dear(pool: Pool, usd: float, ceiling_usd: float, unit: str) -> str:
    return (
        f"pool '{pool.name}' costs {usd:.2f} USD per {unit} for good, above the ceiling of "
        f"{ceiling_usd:g}; raise the ceiling or take the pool out"
    )


def _any_of(names: list[str]) -> str:
    return " or ".join(names)


def _all(names: list[str]) -> str:
    return " and ".join(names)
