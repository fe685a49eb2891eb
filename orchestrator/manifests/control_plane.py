"""The controller and what it shares with the gateway: rules, secrets, a place for its state."""

from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config.keys import FILE as KEYS_FILE
from orchestrator.config.load import Loaded, yaml_files
from orchestrator.config.spec import Cluster
from orchestrator.manifests.base import CONTROLLER_ACCOUNT, LEASE
from orchestrator.manifests.parts import (
    CONFIGURATION,
    CONTROLLER,
    HOST,
    KEYS_SECRET,
    LOCKED,
    SECRET,
    STATE,
    UNPRIVILEGED,
    Object,
    RenderError,
    claim,
    obj,
    resources,
)

CLAIM = "controller-state"
STATE_SIZE = "10Gi"
KUBECONFIGS = "/etc/kubeconfigs"
KUBECONFIGS_SECRET = "orchestrator-kubeconfigs"  # noqa: S105 - a name
"""Its entries are kubeconfigs of other clusters, by the clusters' names."""
MAX_CONFIGURATION_BYTES = 1_000_000
"""Of a ConfigMap, with room for its metadata."""
STOP_S = 30
"""A controller that stops gives up its lease and cancels what it asked for."""


def config_map(loaded: Loaded) -> Object:
    """The configuration directory without its keys. Its name changes with its content, so that
    whatever reads it is replaced by what reads the new one. Raises RenderError."""
    files = _files(loaded)
    if sum(len(text) for text in files.values()) > MAX_CONFIGURATION_BYTES:
        raise RenderError(
            f"{loaded.directory}: larger than a ConfigMap may be; let price feeds come by HTTP"
        )
    data = {_key(path): text for path, text in files.items()}
    return obj("v1", "ConfigMap", _configuration_name(loaded), data=data, immutable=True)


def configuration_volume(loaded: Loaded) -> Object:
    """The directory as it was, with the keys that a Secret holds."""
    items = [{"key": _key(path), "path": path} for path in _files(loaded)]
    keys = {"name": KEYS_SECRET, "items": [{"key": KEYS_FILE, "path": KEYS_FILE}]}
    return {
        "name": "configuration",
        "projected": {
            "sources": [
                {"configMap": {"name": _configuration_name(loaded), "items": items}},
                # Without keys nobody gets in, but for those with tokens.
                {"secret": {**keys, "optional": True}},
            ]
        },
    }


def _configuration_name(loaded: Loaded) -> str:
    return f"configuration-{loaded.version}"


def _files(loaded: Loaded) -> dict[str, str]:
    """Contents by the paths of files in the directory."""
    configuration = loaded.configuration
    named = [
        *(feed.file for feed in configuration.price_feeds if feed.file),
        *(cluster.ca_file for cluster in configuration.clusters if cluster.ca_file),
        *(issuer.jwks_file for issuer in configuration.gateway.jwt if issuer.jwks_file),
    ]
    files = [f for f in yaml_files(loaded.directory) if f.name != KEYS_FILE]
    files += sorted({Path(name) for name in named})
    return {_inside(loaded.directory, file): file.read_text() for file in files}


def _key(path: str) -> str:
    """In a ConfigMap, which knows no folders."""
    return path.replace("/", "__")


def _inside(directory: Path, file: Path) -> str:
    inside = directory.resolve()
    if not file.resolve().is_relative_to(inside):
        raise RenderError(f"{file}: not in {directory}, so it would not be there; move it there")
    return file.resolve().relative_to(inside).as_posix()


def environment() -> list[Object]:
    return [
        {"name": "ORCHESTRATOR_STATE", "value": STATE},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]


def secrets() -> list[Object]:
    return [{"secretRef": {"name": SECRET}}]


def mounts() -> list[Object]:
    return [
        {"name": "configuration", "mountPath": CONFIGURATION, "readOnly": True},
        {"name": "state", "mountPath": STATE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]


def volumes(loaded: Loaded, claim_name: str) -> list[Object]:
    return [
        configuration_volume(loaded),
        {"name": "state", "persistentVolumeClaim": {"claimName": claim_name}},
        {"name": "tmp", "emptyDir": {}},
    ]


def apply_first(image: str) -> Object:
    """Puts the rules in force before anything reads them."""
    return {
        "name": "apply",
        "image": image,
        "command": ["orchestrator", "apply", "--no-wait", CONFIGURATION],
        "env": environment(),
        "securityContext": LOCKED,
        "resources": resources("250m", "512Mi"),
        "volumeMounts": mounts(),
    }


def _kubeconfigs(loaded: Loaded, cluster: Cluster) -> list[Object]:
    """Where the ways to other clusters lie."""
    others = {
        c.name: c.kubernetes.kubeconfig_env
        for c in loaded.configuration.clusters
        if c.kubernetes is not None and c.name != cluster.name
    }
    return [
        {"name": variable, "value": f"{KUBECONFIGS}/{name}"}
        for name, variable in others.items()
        if variable is not None
    ]


def controller(loaded: Loaded, cluster: Cluster, single_node: bool) -> list[Object]:
    """Two, one of which leads; on a single node one, which Kubernetes starts again."""
    assert cluster.kubernetes is not None
    image = cluster.kubernetes.image
    wanted = f"{cluster.kubernetes.namespace}/{LEASE}"
    if loaded.configuration.controller.lease != wanted:
        raise RenderError(f"controller.lease: the right to it is given by its name; write {wanted}")
    port = urlsplit(loaded.configuration.controller.url).port or 80
    alive = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5}
    container = {
        "name": "controller",
        "image": image,
        "command": ["orchestrator", "controller"],
        "env": [*environment(), *_kubeconfigs(loaded, cluster)],
        "envFrom": secrets(),
        "ports": [{"name": "http", "containerPort": port}],
        "securityContext": LOCKED,
        "resources": resources("500m", "1Gi"),
        "startupProbe": alive | {"failureThreshold": 24},
        "livenessProbe": alive | {"failureThreshold": 6},
        # Gateways are led to the one that leads; the other stands by unready.
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2},
        "volumeMounts": [
            *mounts(),
            {"name": "kubeconfigs", "mountPath": KUBECONFIGS, "readOnly": True},
        ],
    }
    pod: Object = {
        "serviceAccountName": CONTROLLER_ACCOUNT,
        # It asks the API server for pools and for its lease.
        "automountServiceAccountToken": True,
        "securityContext": UNPRIVILEGED,
        "terminationGracePeriodSeconds": STOP_S,
        "initContainers": [apply_first(image)],
        "containers": [container],
        "volumes": [
            *volumes(loaded, CLAIM),
            {
                "name": "kubeconfigs",
                "secret": {"secretName": KUBECONFIGS_SECRET, "optional": True},
            },
        ],
    }
    if not single_node:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": HOST,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": CONTROLLER},
            }
        ]
    return [
        claim(CLAIM, "ReadWriteOnce" if single_node else "ReadWriteMany", STATE_SIZE, CONTROLLER),
        obj(
            "v1",
            "Service",
            "controller",
            labels=CONTROLLER,
            spec={
                "selector": CONTROLLER,
                "ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": "http"}],
            },
        ),
        obj(
            "apps/v1",
            "Deployment",
            "controller",
            labels=CONTROLLER,
            spec={
                "replicas": 1 if single_node else 2,
                # Gateways outlive it, and two versions at once would be worse than a pause.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": CONTROLLER},
                "template": {"metadata": {"labels": CONTROLLER}, "spec": pod},
            },
        ),
    ]
