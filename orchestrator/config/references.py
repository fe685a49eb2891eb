"""Checks across the configuration: everything named exists, and nothing contradicts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from orchestrator.config.spec import Configuration, Workload, Zone

Place = tuple[str | int, ...]
Finding = tuple[Place, str]


class Named(Protocol):
    @property
    def name(self) -> str: ...


def check(c: Configuration) -> list[Finding]:
    """Every contradiction, with its place in the document. Later checks assume earlier ones."""
    findings = [*_duplicates(c), *_unknown_names(c), *_urls(c)]
    return findings or [*_pools_and_clusters(c), *_workloads(c)]


def _duplicates(c: Configuration) -> Iterator[Finding]:
    sections: dict[str, Sequence[Named]] = {
        "zones": c.zones,
        "clusters": c.clusters,
        "pools": c.pools,
        "models": c.models,
        "workloads": c.workloads,
        "price_feeds": c.price_feeds,
    }
    for section, items in sections.items():
        seen: set[str] = set()
        for i, item in enumerate(items):
            if item.name in seen:
                yield (section, i, "name"), f"'{item.name}' is defined twice; rename one"
            seen.add(item.name)
    ids: set[str] = set()
    for i, key in enumerate(c.keys):
        if key.id in ids:
            yield ("keys", i, "id"), f"key '{key.id}' is defined twice; remove one"
        ids.add(key.id)
    variants: set[str] = set()
    for m, model in enumerate(c.models):
        for v, variant in enumerate(model.variants):
            if variant.name in variants:
                place = ("models", m, "variants", v, "name")
                yield place, f"variant '{variant.name}' is defined twice; rename one"
            variants.add(variant.name)


def _unknown_names(c: Configuration) -> Iterator[Finding]:
    place: Place
    zones, clusters = _names(c.zones), _names(c.clusters)
    pools, models = _names(c.pools), _names(c.models)
    for i, cluster in enumerate(c.clusters):
        yield from _unknown("zone", [cluster.zone], zones, ("clusters", i, "zone"))
    for i, pool in enumerate(c.pools):
        yield from _unknown("cluster", [pool.cluster], clusters, ("pools", i, "cluster"))
        if pool.price.feed is not None:
            place = ("pools", i, "price", "feed")
            yield from _unknown("price feed", [pool.price.feed], _names(c.price_feeds), place)
    for m, model in enumerate(c.models):
        for v, variant in enumerate(model.variants):
            place = ("models", m, "variants", v, "pools")
            yield from _unknown("pool", variant.pools, pools, place)
    for i, workload in enumerate(c.workloads):
        yield from _unknown("model", workload.models, models, ("workloads", i, "models"))
        yield from _unknown(
            "zone", workload.allowed_zones, zones, ("workloads", i, "allowed_zones")
        )
        if workload.burst:
            place = ("workloads", i, "burst", "pools")
            yield from _unknown("pool", workload.burst.pools, pools, place)
    for i, key in enumerate(c.keys):
        yield from _unknown(
            "workload", [key.workload], _names(c.workloads), ("keys", i, "workload")
        )
    yield from _unknown("cluster", [c.gateway.cluster], clusters, ("gateway", "cluster"))


def _unknown(kind: str, used: Iterable[str], known: list[str], place: Place) -> Iterator[Finding]:
    for name in used:
        if name not in known:
            yield (
                place,
                f"{kind} '{name}' is not defined; defined are: {', '.join(known) or 'none'}",
            )


def _names(items: Sequence[Named]) -> list[str]:
    return [item.name for item in items]


def _urls(c: Configuration) -> Iterator[Finding]:
    urls: list[tuple[Place, str | None]] = [
        (("gateway", "url"), c.gateway.url),
        (("controller", "url"), c.controller.url),
    ]
    for i, cluster in enumerate(c.clusters):
        urls.append((("clusters", i, "url"), cluster.url))
        urls.append((("clusters", i, "dashboard_url"), cluster.dashboard_url))
    for place, url in urls:
        try:
            _ = urlsplit(url or "").port
        except ValueError as error:
            yield place, f"not a URL: {error}; write http://HOST:PORT"


def _pools_and_clusters(c: Configuration) -> Iterator[Finding]:
    place: Place
    clusters = {x.name: x for x in c.clusters}
    for i, cluster in enumerate(c.clusters):
        if cluster.kind == "ray" and cluster.dashboard_url is None:
            yield ("clusters", i), f"ray cluster '{cluster.name}' needs a dashboard_url"
        if cluster.kind == "openai" and (cluster.launch or cluster.dashboard_url):
            yield (
                ("clusters", i),
                f"openai cluster '{cluster.name}' takes no launch, no dashboard_url",
            )
        if cluster.kind == "openai" and cluster.url.rstrip("/").endswith("/v1"):
            yield ("clusters", i, "url"), "every path begins with /v1 already; leave it out here"
        for other in c.clusters[:i]:
            if cluster.launch is None or other.launch is None:
                continue
            if abs(cluster.launch.port_base - other.launch.port_base) < 100:
                place = ("clusters", i, "launch", "port_base")
                yield place, f"within 100 ports of cluster '{other.name}'; move it apart"
            if cluster.launch.node_ip_address == other.launch.node_ip_address:
                place = ("clusters", i, "launch", "node_ip_address")
                yield place, f"cluster '{other.name}' has this address; take another 127.0.0.x"
    for i, pool in enumerate(c.pools):
        if (pool.price.fixed_usd_per_gpu_hour is None) == (pool.price.feed is None):
            yield ("pools", i, "price"), "give either fixed_usd_per_gpu_hour or feed"
        if pool.min_replicas > pool.max_replicas:
            yield ("pools", i, "min_replicas"), f"above max_replicas, {pool.max_replicas}; lower it"
        if clusters[pool.cluster].kind == "openai" and pool.min_replicas < 1:
            place = ("pools", i, "min_replicas")
            yield place, "nothing scales an openai endpoint; write min_replicas: 1"
    gateway = clusters[c.gateway.cluster]
    if gateway.kind != "ray":
        yield ("gateway", "cluster"), "the gateway runs on Ray Serve; name a ray cluster"
    zone = next(z for z in c.zones if z.name == gateway.zone)
    highest = max(w.data_class for w in c.workloads)
    if zone.max_data_class < highest:
        yield (
            ("gateway", "cluster"),
            f"every request passes the gateway, and zone '{zone.name}' may not hold "
            f"{highest.label} data; name a cluster in a zone that may",
        )
    for other in c.clusters:
        if urlsplit(other.url).netloc == urlsplit(c.gateway.url).netloc:
            place = ("gateway", "url")
            yield place, f"cluster '{other.name}' listens there; give the gateway a port of its own"


def _workloads(c: Configuration) -> Iterator[Finding]:
    zones = {z.name: z for z in c.zones}
    zone_of_cluster = {x.name: x.zone for x in c.clusters}
    zone_of_pool = {p.name: zones[zone_of_cluster[p.cluster]] for p in c.pools}
    runs = {m.name: {pool for variant in m.variants for pool in variant.pools} for m in c.models}
    always = {p.name: p.min_replicas for p in c.pools}
    bursting = {pool: w.name for w in c.workloads if w.burst for pool in w.burst.pools}
    for i, workload in enumerate(c.workloads):
        pools = set().union(*(runs[m] for m in workload.models))
        away = set(workload.burst.pools) if workload.burst else set()
        holding = {
            pool
            for pool in pools - away
            if zone_of_pool[pool].name in workload.allowed_zones
            and zone_of_pool[pool].max_data_class >= workload.data_class
        }
        if not holding:
            yield (
                ("workloads", i),
                f"workload '{workload.name}' is unreachable: no home pool that runs its models "
                f"lies in an allowed zone that may hold {workload.data_class.label} data",
            )
        elif not any(always[pool] for pool in holding):
            yield (
                ("workloads", i),
                f"workload '{workload.name}' has no replica at home: nothing but a burst scales up "
                f"a pool; give one of {', '.join(sorted(holding))} a min_replicas above 0",
            )
        for pool in sorted(holding & bursting.keys()):
            yield (
                ("workloads", i),
                f"pool '{pool}' would be a home of workload '{workload.name}', but it is there "
                f"only while '{bursting[pool]}' bursts; name it in burst.pools here too, or leave "
                f"zone '{zone_of_pool[pool].name}' out of allowed_zones",
            )
        yield from _burst(i, workload, pools, zone_of_pool)


def _burst(
    i: int, workload: Workload, pools: set[str], zone_of_pool: dict[str, Zone]
) -> Iterator[Finding]:
    burst = workload.burst
    if burst is None:
        return
    if burst.ttft_p95_s is None and burst.queue_per_replica is None:
        yield ("workloads", i, "burst"), "no trigger; give ttft_p95_s or queue_per_replica"
    for pool in burst.pools:
        place = ("workloads", i, "burst", "pools")
        zone = zone_of_pool[pool]
        if pool not in pools:
            yield place, f"pool '{pool}' runs none of the workload's models"
        if zone.name not in workload.allowed_zones:
            yield place, f"pool '{pool}' lies in a zone that allowed_zones does not name"
        elif zone.max_data_class < workload.data_class:
            yield (
                place,
                f"pool '{pool}' lies in a zone that may not hold {workload.data_class.label} data",
            )
