"""What a test does itself where a cluster would have KubeRay, a scheduler and kubelets."""

from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from orchestrator.pools.ray_service import ENDPOINT

GROUP, VERSION = "ray.io", "v1"


class Operator:
    """Makes RayClusters and pods for the RayServices of a namespace, when it is told to."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.custom = client.CustomObjectsApi(api)
        self.core = client.CoreV1Api(api)

    def services(self) -> list[dict[str, Any]]:
        return list(self._custom("list", "rayservices")["items"])

    def service(self, name: str) -> dict[str, Any]:
        return dict(self._custom("get", "rayservices", name))

    def clusters(self) -> list[dict[str, Any]]:
        return list(self._custom("list", "rayclusters")["items"])

    def pods(self) -> list[client.V1Pod]:
        return list(self.core.list_namespaced_pod(self.namespace).items)

    def make_cluster(self, service: dict[str, Any]) -> dict[str, Any]:
        """As KubeRay does: the labels and annotations of the RayService, which owns it."""
        name = f"{service['metadata']['name']}-{service['metadata']['uid'][:5]}"
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "RayCluster",
            "metadata": {
                "name": name,
                "labels": service["metadata"]["labels"]
                | {"ray.io/originated-from-cr-name": service["metadata"]["name"]},
                "annotations": service["metadata"]["annotations"],
                "ownerReferences": [_owner("RayService", service)],
            },
            "spec": service["spec"]["rayClusterConfig"],
        }
        return dict(
            self.custom.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "rayclusters", body
            )
        )

    def make_pod(self, cluster: dict[str, Any], name: str, node: str | None = None) -> str:
        """A worker pod from the template, that the scheduler has put on `node`."""
        template = cluster["spec"]["workerGroupSpecs"][0]["template"]
        name = f"{cluster['metadata']['name']}-{name}"
        body = {
            "metadata": {
                "name": name,
                "labels": template["metadata"]["labels"]
                | {"ray.io/node-type": "worker", "ray.io/cluster": cluster["metadata"]["name"]},
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [_owner("RayCluster", cluster)],
            },
            "spec": template["spec"] | ({"nodeName": node} if node else {}),
        }
        self.core.create_namespaced_pod(self.namespace, body)
        return name

    def say(self, pod: str, status: dict[str, Any]) -> None:
        """As the kubelet or the scheduler does."""
        self.core.patch_namespaced_pod_status(pod, self.namespace, {"status": status})

    def make_ready(self, pod: str) -> None:
        self.say(pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})

    def serve(self, endpoint: str, node: str | None = None) -> list[str]:
        """As many ready pods as the RayService of an endpoint asks for, and no more."""
        service = next(
            s for s in self.services() if s["metadata"]["annotations"][ENDPOINT] == endpoint
        )
        mine = [
            c
            for c in self.clusters()
            if c["metadata"]["ownerReferences"][0]["uid"] == service["metadata"]["uid"]
        ]
        cluster = mine[0] if mine else self.make_cluster(service)
        # RayServices hand their worker groups on when their cluster is made; afterwards it is the
        # autoscaler that sets how many pods Serve's replicas need.
        count = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"]
        names = [f"{cluster['metadata']['name']}-w{i}" for i in range(count)]
        there = {p.metadata.name for p in self.pods()}
        for number, name in enumerate(names):
            if name not in there:
                self.make_pod(cluster, f"w{number}", node)
                self.make_ready(name)
        for name in there - set(names):
            if name.startswith(f"{cluster['metadata']['name']}-w"):
                self.remove_pod(name)
        return names

    def remove_pod(self, name: str) -> None:
        self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)

    def collect(self) -> None:
        """As the garbage collector does: what belongs to a RayService that is being deleted goes,
        then the RayService."""
        for service in self.services():
            metadata = service["metadata"]
            if "deletionTimestamp" not in metadata:
                continue
            for cluster in self.clusters():
                if _owned(cluster, service):
                    for pod in self.pods():
                        if pod.metadata.owner_references[0].uid == cluster["metadata"]["uid"]:
                            self.remove_pod(pod.metadata.name)
                    self._gone("rayclusters", cluster["metadata"]["name"])
            self._finish("rayservices", metadata["name"])
        for cluster in self.clusters():
            if "deletionTimestamp" in cluster["metadata"]:
                self._finish("rayclusters", cluster["metadata"]["name"])

    def make_node(self, name: str, spec: dict[str, Any] | None = None) -> None:
        self.core.create_node({"metadata": {"name": name}, "spec": spec or {}})

    def change_node(self, name: str, change: dict[str, Any]) -> None:
        self.core.patch_node(name, change)

    def clear(self) -> None:
        for pod in self.pods():
            self.remove_pod(pod.metadata.name)
        for kind in ("rayclusters", "rayservices"):
            for item in self._custom("list", kind)["items"]:
                self._gone(kind, item["metadata"]["name"])

    def _gone(self, kind: str, name: str) -> None:
        try:
            self._custom("delete", kind, name)
            self._finish(kind, name)
        except ApiException as error:
            if error.status != 404:
                raise

    def _finish(self, kind: str, name: str) -> None:
        try:
            self.custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, kind, name, {"metadata": {"finalizers": None}}
            )
        except ApiException as error:
            if error.status != 404:
                raise

    def _custom(self, verb: str, kind: str, *name: str) -> Any:
        call = getattr(self.custom, f"{verb}_namespaced_custom_object")
        return call(GROUP, VERSION, self.namespace, kind, *name)


def _owned(cluster: dict[str, Any], service: dict[str, Any]) -> bool:
    owners = cluster["metadata"].get("ownerReferences") or []
    return any(o["uid"] == service["metadata"]["uid"] for o in owners)


def _owner(kind: str, owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
