"""Checks of who may call: what keys and tokens are given, and whose tokens are taken.

Assumes that every name is defined and defined once.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from orchestrator.config.spec import Configuration, JwtIssuer, Scope, Workload

Place = tuple[str | int, ...]
Finding = tuple[Place, str]


def access(c: Configuration) -> Iterator[Finding]:
    """Each with its place in the document and its mend."""
    workloads = {w.name: w for w in c.workloads}
    for number, key in enumerate(c.keys):
        yield from scope(("keys", number, "scope"), key.scope, workloads[key.workload])
    seen: set[str] = set()
    for number, issuer in enumerate(c.gateway.jwt):
        at: Place = ("gateway", "jwt", number)
        if issuer.issuer in seen:
            yield (*at, "issuer"), f"'{issuer.issuer}' stands above already; put its rules together"
        seen.add(issuer.issuer)
        yield from _key_place(at, issuer)
        yield from _rules(at, issuer, workloads)


def scope(at: Place, given: Scope, workload: Workload) -> Iterator[Finding]:
    """What a scope names that its workload has not."""
    for number, model in enumerate(given.models or ()):
        if model not in workload.models:
            yield (
                (*at, "models", number),
                f"workload '{workload.name}' has no model '{model}'; it has: "
                f"{', '.join(workload.models)}",
            )


def _key_place(at: Place, issuer: JwtIssuer) -> Iterator[Finding]:
    if (issuer.jwks_url is None) == (issuer.jwks_file is None):
        yield at, "give one of jwks_url and jwks_file"
    if issuer.max_age_s < issuer.refresh_s:
        yield (
            (*at, "max_age_s"),
            "shorter than refresh_s: keys would end before they are renewed; raise it",
        )
    url = urlsplit(issuer.jwks_url or "")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield (
            (*at, "jwks_url"),
            "whoever is on the way could give keys of their own; write https://",
        )


def is_loopback(host: str) -> bool:
    """Whether what goes there stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _rules(at: Place, issuer: JwtIssuer, workloads: dict[str, Workload]) -> Iterator[Finding]:
    for number, rule in enumerate(issuer.workloads):
        place = (*at, "workloads", number)
        yield from scope((*place, "scope"), rule.scope, workloads[rule.workload])
        for before, earlier in enumerate(issuer.workloads[:number]):
            if earlier.claims.items() <= rule.claims.items():
                yield (
                    (*place, "claims"),
                    f"never decides: rule {before + 1} takes every token with these claims; put "
                    "this one before it",
                )
                break
