"""What the objects have in common: names, labels, how pods are locked down."""

from collections.abc import Iterable
from typing import Any

from orchestrator.pools.ray_service import MANAGED_BY, MANAGER, POOL, label

Object = dict[str, Any]


class RenderError(Exception):
    """The configuration cannot be brought to Kubernetes; the message says what to write."""


COMPONENT = "app.kubernetes.io/component"
PART_OF = {"app.kubernetes.io/part-of": "orchestrator"}
NODE_TYPE = "ray.io/node-type"
"""KubeRay's label: `head` or `worker`."""
HOST = "kubernetes.io/hostname"

CONTROLLER = {**PART_OF, COMPONENT: "controller"}
GATEWAY = {**PART_OF, COMPONENT: "gateway"}
"""Not labels of pools: what bears those, and is no pool, the controller takes away."""
POOLS = {MANAGED_BY: MANAGER}

SECRET = "orchestrator"  # noqa: S105 - a name
"""Its entries are environment variables of the gateway and the controller."""
KEYS_SECRET = "orchestrator-keys"  # noqa: S105
"""Its entry `keys.yaml` holds the hashes of API keys."""

CONFIGURATION = "/etc/orchestrator"
STATE = "/var/lib/orchestrator"
USER_ID = 1000

LOCKED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Of every container."""
UNPRIVILEGED: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    # A volume with years of records is not walked through at every start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Of every pod."""


def obj(api_version: str, kind: str, name: str, **parts: Any) -> Object:
    """An object without a namespace; `labels` go into its metadata."""
    metadata: Object = {"name": name, "labels": parts.pop("labels", PART_OF)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def of_pool(pool: str) -> dict[str, str]:
    """Labels that all pods of a pool have, and no others."""
    return {**POOLS, POOL: label(pool)}


def port(number: int, protocol: str = "TCP") -> Object:
    return {"protocol": protocol, "port": number}


def pods(labels: dict[str, str]) -> Object:
    """A peer of a NetworkPolicy: pods of the same namespace."""
    return {"podSelector": {"matchLabels": labels}}


def addresses(cidrs: Iterable[str]) -> list[Object]:
    """Peers of a NetworkPolicy: addresses outside of the cluster."""
    return [{"ipBlock": {"cidr": cidr}} for cidr in sorted(cidrs)]


def resources(cpu: str, memory: str) -> Object:
    """Memory has a limit, since a node that has none left ends whatever it likes; processors have
    none, since what nobody else wants is there to be used."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


def claim(name: str, mode: str, size: str, labels: dict[str, str]) -> Object:
    return obj(
        "v1",
        "PersistentVolumeClaim",
        name,
        labels=labels,
        spec={"accessModes": [mode], "resources": {"requests": {"storage": size}}},
    )
