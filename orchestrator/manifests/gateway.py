"""The gateway: a RayService whose one worker pod holds all replicas.

Gateways of one pod share its port, and its state: conversations and what they once were, limits,
files. Those of two nodes would not, and a conversation that was raised on one would be unknown to
the other. So there is one pod, beside which the next version's starts, on the same node, since the
state's volume is there.
"""

import json
from importlib.metadata import version
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config.load import Loaded
from orchestrator.config.spec import Cluster
from orchestrator.manifests.base import GATEWAY_ACCOUNT
from orchestrator.manifests.control_plane import (
    apply_first,
    environment,
    mounts,
    secrets,
    volumes,
)
from orchestrator.manifests.parts import (
    GATEWAY,
    HOST,
    LOCKED,
    NODE_TYPE,
    STATE,
    UNPRIVILEGED,
    Object,
    RenderError,
    claim,
    obj,
    resources,
)
from orchestrator.stack.up import DRAIN_MARGIN_S, gateway_application

NAME = "gateway"
CLAIM = "gateway-state"
STATE_SIZE = "100Gi"
STOP_S = 30
"""What Ray needs to stop."""
GIB_PER_REPLICA = 1
GIB_FOR_RAY = 2
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def gateway(loaded: Loaded, cluster: Cluster) -> list[Object]:
    """Raises RenderError."""
    spec = loaded.configuration.gateway
    address = urlsplit(spec.url)
    if address.hostname not in ANY_ADDRESS:
        raise RenderError(
            f"gateway.url: a pod listens on every address of its own; write "
            f"http://0.0.0.0:{address.port or 80}"
        )
    port = address.port or 80
    return [
        claim(CLAIM, "ReadWriteOnce", STATE_SIZE, GATEWAY),
        obj(
            "ray.io/v1",
            "RayService",
            NAME,
            labels=GATEWAY,
            spec={
                "serveConfigV2": _serve_config(loaded),
                "serveService": {
                    "metadata": {"name": NAME, "labels": GATEWAY},
                    "spec": {"ports": [{"name": "serve", "port": port, "targetPort": port}]},
                },
                "excludeHeadPodFromServeSvc": True,
                # Streams that began on the old pods end there.
                "rayClusterDeletionDelaySeconds": _drain_s(loaded),
                "rayClusterConfig": {
                    "rayVersion": version("ray"),
                    "authOptions": {"mode": "token"},
                    "headGroupSpec": {
                        "rayStartParams": {"num-cpus": "0"},
                        "template": _head(loaded, cluster),
                    },
                    "workerGroupSpecs": [
                        {
                            "groupName": "gateways",
                            "replicas": 1,
                            "minReplicas": 1,
                            "maxReplicas": 1,
                            # Serve counts a tenth for each, twice over while it replaces them.
                            "rayStartParams": {"num-cpus": str(ceil(spec.replicas / 2))},
                            "template": _worker(loaded, cluster, port),
                        }
                    ],
                },
            },
        ),
    ]


def _drain_s(loaded: Loaded) -> int:
    """The longest answer, and what is needed beyond it."""
    return ceil(loaded.configuration.gateway.timeouts.total_s + DRAIN_MARGIN_S)


def _serve_config(loaded: Loaded) -> str:
    config = {
        # A gateway listens itself.
        "proxy_location": "Disabled",
        "applications": [gateway_application(loaded, Path(STATE))],
    }
    return json.dumps(config, indent=1)


def _head(loaded: Loaded, cluster: Cluster) -> Object:
    """Nothing but Ray's and Serve's control runs there."""
    assert cluster.kubernetes is not None
    container = _ray("ray-head", cluster.kubernetes.image, "1", "4Gi") | {
        "ports": [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
            {"name": "serve", "containerPort": urlsplit(loaded.configuration.gateway.url).port},
        ],
    }
    return _template(container, [{"name": "tmp", "emptyDir": {}}, _SHARED_MEMORY], STOP_S)


def _worker(loaded: Loaded, cluster: Cluster, port: int) -> Object:
    assert cluster.kubernetes is not None
    image = cluster.kubernetes.image
    replicas = loaded.configuration.gateway.replicas
    memory = f"{GIB_FOR_RAY + GIB_PER_REPLICA * replicas}Gi"
    drain_s = _drain_s(loaded)
    leave = ["python", "-m", "orchestrator.gateway.leave", str(port), str(drain_s)]
    container = _ray("ray-worker", image, str(max(1, replicas)), memory) | {
        "env": [
            *environment(),
            # Without its head it goes on for as long as its streams may.
            {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": str(drain_s)},
        ],
        "envFrom": secrets(),
        "ports": [{"name": "serve", "containerPort": port}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "serve"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
        },
        "lifecycle": {"preStop": {"exec": {"command": leave}}},
    }
    container["volumeMounts"] = [*mounts(), *_shared_memory_mount()]
    template = _template(container, [*volumes(loaded, CLAIM), _SHARED_MEMORY], drain_s + STOP_S)
    template["spec"]["initContainers"] = [apply_first(image)]
    template["spec"]["affinity"] = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {**GATEWAY, NODE_TYPE: "worker"}},
                    "topologyKey": HOST,
                }
            ]
        }
    }
    return template


_SHARED_MEMORY: Object = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}


def _shared_memory_mount() -> list[Object]:
    return [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108


def _ray(name: str, image: str, cpu: str, memory: str) -> Object:
    return {
        "name": name,
        "image": image,
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "securityContext": LOCKED,
        "resources": resources(cpu, memory),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *_shared_memory_mount()],  # noqa: S108
    }


def _template(container: Object, volumes: list[Object], grace_s: int) -> Object:
    return {
        "metadata": {"labels": GATEWAY},
        "spec": {
            "serviceAccountName": GATEWAY_ACCOUNT,
            "automountServiceAccountToken": False,
            "securityContext": UNPRIVILEGED,
            "terminationGracePeriodSeconds": grace_s,
            "containers": [container],
            "volumes": volumes,
        },
    }
