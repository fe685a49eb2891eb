"""What `pools.kuberay` asks of a Kubernetes cluster, as rules of RBAC: all of it and no more."""

from typing import Any

IN_NAMESPACE: list[dict[str, Any]] = [
    {
        "apiGroups": ["ray.io"],
        "resources": ["rayservices"],
        "verbs": ["list", "watch", "create", "patch", "delete"],
    },
    # KubeRay makes them; without an owner they are ours to take away.
    {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["list", "watch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
]
"""For a Role in the namespace of the pools."""
IN_CLUSTER: list[dict[str, Any]] = [
    # Drains and spot notices are told on nodes, which belong to no namespace.
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
]
"""For a ClusterRole."""
