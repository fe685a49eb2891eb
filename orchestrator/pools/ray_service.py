"""The RayService of one endpoint: what is applied to a Kubernetes cluster, as data.

Serve is told the number of replicas and drains those that are too many; Ray's autoscaler gives it
the worker pods that they need and takes those that have become idle, so that no pod goes under a
live stream, and each of the two numbers has one owner.
"""

import json
from importlib.metadata import version
from typing import Any

import yaml

from orchestrator.policy.candidate import Candidate
from orchestrator.pools.ray import SHUTDOWN_GRACE_S, deployment_name, llm_application

RAY_VERSION = version("ray")
GROUP, VERSION = "ray.io", "v1"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "orchestrator"
"""The value of that label, and the field manager of what is applied."""
CLUSTER, POOL, VARIANT, ZONE = (
    f"{MANAGER}/{word}" for word in ("cluster", "pool", "variant", "zone")
)
"""Labels of everything that an endpoint consists of, its pods included."""
ENDPOINT, URL = f"{MANAGER}/endpoint", f"{MANAGER}/url"
"""Annotations: `pool/variant` in full, and where its engine answers."""
CLUSTER_DELETION_DELAY_S = SHUTDOWN_GRACE_S
"""A cluster that a newer one has replaced keeps its streams for so long."""
IDLE_S = 30
"""A worker whose replica is gone is kept for so long."""
HEAD = {"cpu": "1", "memory": "4Gi"}
SHARED_MEMORY = "8Gi"
USER_ID = 1000
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - a volume of the pod's own
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
}


def labels(candidate: Candidate) -> dict[str, str]:
    return {
        MANAGED_BY: MANAGER,
        CLUSTER: label(candidate.cluster.name),
        POOL: label(candidate.pool.name),
        VARIANT: label(candidate.variant.name),
        ZONE: label(candidate.zone.name),
    }


def label(name: str) -> str:
    """A name of the configuration as a label's value, which ends in a letter or a digit."""
    return name.rstrip("._-")


def ray_service(candidate: Candidate, replicas: int) -> dict[str, Any]:
    """Every field that we own. `replicas` is at least 1: Serve takes no deployment of none."""
    kubernetes = candidate.cluster.kubernetes
    assert kubernetes is not None, "checked with the configuration"
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayService",
        "metadata": {
            "name": candidate.service_name,
            "namespace": kubernetes.namespace,
            "labels": labels(candidate),
            "annotations": {ENDPOINT: candidate.endpoint, URL: candidate.url},
        },
        "spec": {
            "serveConfigV2": serve_config(candidate, replicas),
            "excludeHeadPodFromServeSvc": True,
            "rayClusterDeletionDelaySeconds": CLUSTER_DELETION_DELAY_S,
            "rayClusterConfig": {
                "rayVersion": RAY_VERSION,
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "idleTimeoutSeconds": IDLE_S,
                    "securityContext": SECURITY,
                },
                "headGroupSpec": {
                    # Nothing but Serve's controller runs there.
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
                    "template": _pod(candidate, "ray-head", HEAD, gpus=0),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "replicas",
                        # How many the cluster starts with; then it is the autoscaler's number.
                        "replicas": replicas,
                        "minReplicas": 0,
                        "rayStartParams": {},
                        "template": _worker(candidate),
                    }
                ],
            },
        },
    }


def serve_config(candidate: Candidate, replicas: int) -> str:
    """The application, with the number of replicas where Serve changes it in place: anything in
    `args` is part of the application's version, and another version restarts all replicas."""
    application = llm_application(candidate, 1)
    application["deployments"] = [
        {"name": f"LLMServer:{deployment_name(candidate)}", "num_replicas": replicas}
    ]
    return json.dumps({"applications": [application]}, indent=1)


def wanted(service: dict[str, Any]) -> int:
    """How many replicas a RayService of ours asks for; 0 where nobody can tell."""
    try:
        text = service["spec"]["serveConfigV2"]
        # Ours is JSON, which is read a hundred times as fast; an edited one may be YAML.
        config = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
        return int(config["applications"][0]["deployments"][0]["num_replicas"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        return 0


def _worker(candidate: Candidate) -> dict[str, Any]:
    pool, pod = candidate.pool, candidate.pool.pod
    gpus = 0 if pool.accelerator == "CPU" else pool.gpus_per_replica
    sizes = {"cpu": pod.cpu if pod else "4", "memory": pod.memory if pod else "32Gi"}
    template = _pod(candidate, "ray-worker", sizes, gpus)
    selected = pod.node_labels if pod else {}
    tainted = sorted({*selected, *([_GPU] if gpus else [])})
    template["spec"] |= {
        "nodeSelector": selected,
        "tolerations": [{"key": key, "operator": "Exists"} for key in tainted],
    }
    return template


_GPU = "nvidia.com/gpu"


def _pod(candidate: Candidate, name: str, sizes: dict[str, str], gpus: int) -> dict[str, Any]:
    kubernetes = candidate.cluster.kubernetes
    assert kubernetes is not None, "checked with the configuration"
    devices = {_GPU: str(gpus)} if gpus else {}
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
    ]
    if kubernetes.weights_claim:
        mounts.append({"name": "weights", "mountPath": "/models", "readOnly": True})  # type: ignore[dict-item]
        claim = {"claimName": kubernetes.weights_claim, "readOnly": True}
        volumes.append({"name": "weights", "persistentVolumeClaim": claim})
    return {
        "metadata": {
            "labels": labels(candidate),
            "annotations": {ENDPOINT: candidate.endpoint},
        },
        "spec": {
            "terminationGracePeriodSeconds": SHUTDOWN_GRACE_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": kubernetes.image,
                    "securityContext": SECURITY,
                    "env": [{"name": k, "value": v} for k, v in ENVIRONMENT.items()],
                    "envFrom": [{"secretRef": {"name": s}} for s in kubernetes.secrets],
                    "resources": {
                        "requests": sizes | devices,
                        "limits": {"memory": sizes["memory"]} | devices,
                    },
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }
