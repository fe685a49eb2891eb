"""Checks across the configuration: everything named exists, and nothing contradicts."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlsplit

from orchestrator.config.access import access
from orchestrator.config.contradictions import contradictions
from orchestrator.config.pricing import pricing, used_feeds
from orchestrator.config.spec import Cluster, Configuration, Workload, Zone

Place = tuple[str | int, ...]
Finding = tuple[Place, str]

MOST_NAMES = 20
"""Of those that a message lists."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


def check(c: Configuration) -> list[Finding]:
    """Every contradiction, with its place in the document. Later checks assume earlier ones."""
    findings = [*_duplicates(c), *_unknown_names(c), *_urls(c)]
    return findings or [
        *_pools_and_clusters(c),
        *pricing(c),
        *_workloads(c),
        *access(c),
        *contradictions(c),
    ]


def _duplicates(c: Configuration) -> Iterator[Finding]:
    sections: dict[str, Sequence[Any]] = {
        "zones": c.zones,
        "clusters": c.clusters,
        "pools": c.pools,
        "models": c.models,
        "profiles": c.profiles,
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
    feeds, workloads = _names(c.price_feeds), _names(c.workloads)
    for i, cluster in enumerate(c.clusters):
        yield from _unknown("zone", [cluster.zone], zones, ("clusters", i, "zone"))
    for i, pool in enumerate(c.pools):
        yield from _unknown("cluster", [pool.cluster], clusters, ("pools", i, "cluster"))
        for inside, feed in used_feeds(pool.price):
            yield from _unknown("price feed", [feed], feeds, ("pools", i, "price", *inside))
    for m, model in enumerate(c.models):
        for v, variant in enumerate(model.variants):
            place = ("models", m, "variants", v, "pools")
            yield from _unknown("pool", variant.pools, pools, place)
    for i, workload in enumerate(c.workloads):
        yield from _unknown("model", workload.models, models, ("workloads", i, "models"))
        yield from _unknown(
            "zone", workload.allowed_zones, zones, ("workloads", i, "allowed_zones")
        )
        place = ("workloads", i, "preferred_zones")
        yield from _unknown("zone", workload.preferred_zones, zones, place)
        if workload.burst:
            place = ("workloads", i, "burst", "pools")
            yield from _unknown("pool", workload.burst.pools, pools, place)
    for i, key in enumerate(c.keys):
        yield from _unknown("workload", [key.workload], workloads, ("keys", i, "workload"))
        place = ("keys", i, "scope", "models")
        yield from _unknown("model", key.scope.models or (), models, place)
    for i, issuer in enumerate(c.gateway.jwt):
        for r, rule in enumerate(issuer.workloads):
            at = ("gateway", "jwt", i, "workloads", r)
            yield from _unknown("workload", [rule.workload], workloads, (*at, "workload"))
            place = (*at, "scope", "models")
            yield from _unknown("model", rule.scope.models or (), models, place)
    yield from _unknown("cluster", [c.gateway.cluster], clusters, ("gateway", "cluster"))


def _unknown(
    kind: str, used: Iterable[str], known: dict[str, None], place: Place
) -> Iterator[Finding]:
    for name in used:
        if name not in known:
            listed = ", ".join(islice(known, MOST_NAMES))
            more = ", ..." if len(known) > MOST_NAMES else ""
            yield place, f"{kind} '{name}' is not defined; defined are: {listed or 'none'}{more}"


def _names(items: Sequence[Named]) -> dict[str, None]:
    return {item.name: None for item in items}


def _urls(c: Configuration) -> Iterator[Finding]:
    urls: list[tuple[Place, str | None]] = [
        (("gateway", "url"), c.gateway.url),
        (("controller", "url"), c.controller.url),
    ]
    for i, cluster in enumerate(c.clusters):
        urls.append((("clusters", i, "url"), cluster.url))
        urls.append((("clusters", i, "dashboard_url"), cluster.dashboard_url))
    for i, issuer in enumerate(c.gateway.jwt):
        urls.append((("gateway", "jwt", i, "jwks_url"), issuer.jwks_url))
    for i, feed in enumerate(c.price_feeds):
        for kind, source in (("http", feed.http), ("prometheus", feed.prometheus)):
            if source is not None:
                urls.append((("price_feeds", i, kind, "url"), source.url))
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
        if cluster.kind != "ray" and (cluster.launch or cluster.dashboard_url):
            yield (
                ("clusters", i),
                f"{cluster.kind} cluster '{cluster.name}' takes no launch, no dashboard_url",
            )
        yield from _kubernetes(i, cluster)
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
        if pool.min_replicas > pool.max_replicas:
            yield ("pools", i, "min_replicas"), f"above max_replicas, {pool.max_replicas}; lower it"
        if clusters[pool.cluster].kind == "openai" and pool.min_replicas < 1:
            place = ("pools", i, "min_replicas")
            yield place, "nothing scales an openai endpoint; write min_replicas: 1"
        if clusters[pool.cluster].kind != "kuberay" and pool.pod is not None:
            yield ("pools", i, "pod"), f"cluster '{pool.cluster}' has no pods; leave it out"
    gateway = clusters[c.gateway.cluster]
    if gateway.kind == "openai":
        yield ("gateway", "cluster"), "the gateway runs on Ray Serve; name a ray or kuberay cluster"
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


def _kubernetes(i: int, cluster: Cluster) -> Iterator[Finding]:
    if (cluster.kind == "kuberay") != (cluster.kubernetes is not None):
        wanted = "needs" if cluster.kind == "kuberay" else "takes no"
        yield ("clusters", i), f"{cluster.kind} cluster '{cluster.name}' {wanted} kubernetes"
    if cluster.kubernetes and cluster.kubernetes.context and not cluster.kubernetes.kubeconfig_env:
        place: Place = ("clusters", i, "kubernetes", "context")
        yield place, "of which kubeconfig? give kubeconfig_env as well"
    named = cluster.url.replace("{service}", "") if cluster.kind == "kuberay" else cluster.url
    if "{" in named or "}" in named:
        yield ("clusters", i, "url"), "only {service}, of a kuberay cluster, stands for something"


def _workloads(c: Configuration) -> Iterator[Finding]:
    zones = {z.name: z for z in c.zones}
    zone_of_cluster = {x.name: x.zone for x in c.clusters}
    zone_of_pool = {p.name: zones[zone_of_cluster[p.cluster]] for p in c.pools}
    runs = {m.name: {pool for variant in m.variants for pool in variant.pools} for m in c.models}
    for i, workload in enumerate(c.workloads):
        pools = set().union(*(runs[m] for m in workload.models))
        yield from _burst(i, workload, pools, zone_of_pool)


def _burst(
    i: int, workload: Workload, pools: set[str], zone_of_pool: dict[str, Zone]
) -> Iterator[Finding]:
    burst = workload.burst
    if burst is None:
        return
    triggers = (burst.ttft_p95_s, burst.queue_per_replica, burst.usd_per_gpu_hour_below)
    if all(t is None for t in triggers) and not burst.schedule:
        yield (
            ("workloads", i, "burst"),
            "no trigger; give ttft_p95_s, queue_per_replica, usd_per_gpu_hour_below or a schedule",
        )
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
