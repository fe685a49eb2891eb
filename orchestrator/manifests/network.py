"""NetworkPolicies: what may talk to what. Residency holds here too, whatever the gateway does.

A pool is reached by gateway, controller and monitoring alone, and reaches its own pods. Only where
variants are fetched from a hub, and the zone may not hold restricted data, may it reach one.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import Cluster, Configuration
from orchestrator.manifests.parts import (
    CONTROLLER,
    GATEWAY,
    NODE_TYPE,
    POOLS,
    Object,
    RenderError,
    addresses,
    obj,
    of_pool,
    pods,
    port,
)
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.ray_service import label

DASHBOARD_PORT = 8265
SERVE_PORT = 8000
API_SERVER_PORTS = (443, 6443)
HTTPS = 443
NOT_THE_INTERNET = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
)
LINK_LOCAL = "169.254.0.0/16"
"""Where clouds hand out the credentials of a node."""


def namespace_role(name: str) -> Object:
    """Pods of the namespaces that somebody has given this role."""
    return {"namespaceSelector": {"matchLabels": {f"orchestrator/{name}": "true"}}}


OPERATOR = namespace_role("operator")
"""KubeRay's."""
MONITORING = namespace_role("monitoring")
INGRESS = namespace_role("ingress")


def defaults() -> list[Object]:
    """For every cluster: nothing may talk, but for what other policies allow. Names are asked of
    the cluster's own servers alone."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return [
        _policy("default-deny", {}, ingress=[], egress=[]),
        _policy("names", {}, egress=[_to([dns], (53,), "UDP"), _to([dns], (53,))]),
        _policy("operator", POOLS, ingress=[_from([OPERATOR], DASHBOARD_PORT)]),
    ]


def pools(catalogue: Catalogue, cluster: Cluster, with_gateway: bool) -> list[Object]:
    """Of the pools of a cluster. Raises RenderError."""
    api_server = _api_server(cluster)
    made = [
        # Ray's autoscaler, which runs beside the head, makes and takes away worker pods.
        _policy(
            "pool-heads",
            {**POOLS, NODE_TYPE: "head"},
            egress=[_to(api_server, API_SERVER_PORTS)],
        )
    ]
    here = {
        name: found
        for name, found in catalogue.by_pool.items()
        if found and found[0].cluster.name == cluster.name
    }
    _told_apart(list(here))
    askers = [pods(GATEWAY), pods(CONTROLLER)] if with_gateway else [INGRESS]
    for name, candidates in here.items():
        own = of_pool(name)
        egress = [{"to": [pods(own)]}]
        if _fetches(candidates):
            egress.append(_to([_anywhere(NOT_THE_INTERNET)], (HTTPS,)))
        made.append(
            _policy(
                f"pool-{re.sub('[._-]+', '-', label(name))}",
                own,
                ingress=[{"from": [pods(own)]}, _from([*askers, MONITORING], SERVE_PORT)],
                egress=egress,
            )
        )
    return made


def control_plane(catalogue: Catalogue, cluster: Cluster) -> list[Object]:
    """Of the gateway and the controller, which are in this cluster."""
    configuration = catalogue.configuration
    gateway_port = urlsplit(configuration.gateway.url).port or 80
    controller_port = urlsplit(configuration.controller.url).port or 80
    served_here = _to([pods(POOLS)], (SERVE_PORT,))
    issuers = [i.jwks_url for i in configuration.gateway.jwt if i.jwks_url]
    elsewhere = [c for c in configuration.clusters if c.name != cluster.name]
    endpoints = [c.url for c in elsewhere]
    dashboards = [c.dashboard_url for c in elsewhere if c.dashboard_url]
    servers = [c for c in configuration.clusters if c.kubernetes is not None]
    return [
        _policy(
            "gateway",
            GATEWAY,
            ingress=[
                # Clients: every request proves who it is.
                {"ports": [port(gateway_port)]},
                _from([OPERATOR], DASHBOARD_PORT),
                {"from": [pods(GATEWAY)]},
            ],
            egress=[
                {"to": [pods(GATEWAY)]},
                _to([pods(CONTROLLER)], (controller_port,)),
                served_here,
                *_to_urls([*endpoints, *issuers]),
            ],
        ),
        _policy(
            "controller",
            CONTROLLER,
            ingress=[_from([pods(GATEWAY), MONITORING], controller_port)],
            egress=[
                served_here,
                _to([peer for s in servers for peer in _api_server(s)], API_SERVER_PORTS),
                *_to_urls([*endpoints, *dashboards, *_feeds(configuration)]),
            ],
        ),
    ]


def _told_apart(names: list[str]) -> None:
    """Policies know pools by their labels. Raises RenderError."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(re.sub("[._-]+", "-", label(name)), name)
        if other != name:
            raise RenderError(
                f"pools '{other}' and '{name}' have one name in Kubernetes; rename one of them"
            )


def _fetches(candidates: Iterable[Candidate]) -> bool:
    """Whether replicas fetch weights from a hub. Raises RenderError where they must not."""
    fetched = [c for c in candidates if not c.variant.weights.startswith("/")]
    for candidate in fetched:
        if candidate.zone.max_data_class is DataClass.RESTRICTED:
            raise RenderError(
                f"variant '{candidate.variant.name}': pool '{candidate.pool.name}' may hold "
                "restricted data and has no way out, so it cannot fetch "
                f"'{candidate.variant.weights}'; give a path on the claim of "
                "kubernetes.weights_claim, such as /models/NAME"
            )
    return bool(fetched)


def _feeds(configuration: Configuration) -> list[str]:
    """URLs that prices are read from."""
    sources = [
        source for feed in configuration.price_feeds for source in (feed.http, feed.prometheus)
    ]
    return [source.url for source in sources if source is not None]


def _api_server(cluster: Cluster) -> list[Object]:
    assert cluster.kubernetes is not None
    if not cluster.kubernetes.api_server:
        raise RenderError(
            f"cluster '{cluster.name}': give kubernetes.api_server, the addresses that "
            "`kubectl get endpoints kubernetes -n default` and `kubectl get service kubernetes "
            "-n default` show: only they may be reached by what asks the API server"
        )
    return addresses(cluster.kubernetes.api_server)


def _to_urls(urls: Iterable[str]) -> list[Object]:
    """A NetworkPolicy knows no names: where one stands, any address may be reached at its port,
    but not a node's credentials."""
    rules: dict[tuple[str, int], Object] = {}
    for url in urls:
        parts = urlsplit(url)
        number = parts.port or {"http": 80, "https": HTTPS}[parts.scheme]
        try:
            address = ip_address(parts.hostname or "")
            cidr = f"{address}/{address.max_prefixlen}"
            rules[cidr, number] = _to(addresses([cidr]), (number,))
        except ValueError:
            rules["", number] = _to([_anywhere((LINK_LOCAL,))], (number,))
    return [rules[key] for key in sorted(rules)]


def _anywhere(without: tuple[str, ...]) -> Object:
    return {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(without)}}


def _to(peers: list[Object], numbers: tuple[int, ...], protocol: str = "TCP") -> Object:
    return {"to": peers, "ports": [port(number, protocol) for number in numbers]}


def _from(peers: list[Object], number: int) -> Object:
    return {"from": peers, "ports": [port(number)]}


def _policy(
    name: str,
    chosen: dict[str, str],
    ingress: list[Object] | None = None,
    egress: list[Object] | None = None,
) -> Object:
    """A direction that is given is restricted to its rules."""
    types = {"Ingress": ingress, "Egress": egress}
    return obj(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name,
        spec={
            "podSelector": {"matchLabels": chosen} if chosen else {},
            "policyTypes": [name for name, rules in types.items() if rules is not None],
            **({"ingress": ingress} if ingress else {}),
            **({"egress": egress} if egress else {}),
        },
    )
