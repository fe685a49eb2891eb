"""Files of Kubernetes objects, from a configuration. Pure but for reading the configuration's own
files."""

from collections.abc import Iterable

from orchestrator.config.load import Loaded
from orchestrator.config.spec import Cluster
from orchestrator.manifests import base, network, pools
from orchestrator.manifests.control_plane import config_map, controller
from orchestrator.manifests.gateway import gateway
from orchestrator.manifests.monitoring import dashboard_maps, of_control_plane, of_pool
from orchestrator.manifests.parts import GATEWAY, NODE_TYPE, Object, RenderError, obj
from orchestrator.policy.catalogue import Catalogue

Files = dict[str, list[Object]]
"""Objects by the name of the file that they stand in."""

POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")
}


def base_files() -> Files:
    """What every cluster needs; without a namespace."""
    return {
        "accounts.yaml": base.accounts(),
        "roles.yaml": base.roles(),
        "network.yaml": network.defaults(),
    }


def dashboard_files() -> Files:
    return {f"{m['metadata']['name']}.yaml": [m] for m in dashboard_maps()}


def cluster_files(loaded: Loaded, name: str | None = None, single_node: bool = False) -> Files:
    """What one cluster of a configuration needs beside; by default that of the gateway, which has
    the controller too. Raises RenderError."""
    catalogue = Catalogue(loaded.configuration, loaded.version)
    home = loaded.configuration.gateway.cluster
    cluster = _cluster(catalogue, name or home)
    assert cluster.kubernetes is not None
    namespace = cluster.kubernetes.namespace
    here = [c for c in catalogue.candidates.values() if c.cluster is cluster]
    is_home = cluster.name == home
    files = {
        "namespace.yaml": [_namespace(namespace), base.node_reader(namespace)],
        "network.yaml": network.pools(catalogue, cluster, with_gateway=is_home),
        "pools.yaml": [pools.service(c) for c in here if c.pool.min_replicas],
        "budgets.yaml": [budget for c in here for budget in pools.budgets(c)],
        "monitors.yaml": [of_pool(c) for c in here],
    }
    if is_home:
        files["configuration.yaml"] = [config_map(loaded)]
        files["controller.yaml"] = controller(loaded, cluster, single_node)
        files["gateway.yaml"] = gateway(loaded, cluster)
        files["network.yaml"] += network.control_plane(catalogue, cluster)
        files["monitors.yaml"] += of_control_plane(loaded.configuration)
        files["budgets.yaml"].append(_gateway_budget())
    return {file: _in(namespace, objects) for file, objects in files.items() if objects}


def everything(loaded: Loaded, name: str | None = None, single_node: bool = False) -> list[Object]:
    """All objects of one cluster, each in its namespace, those first that others need. Raises
    RenderError."""
    files = cluster_files(loaded, name, single_node)
    namespace = files["namespace.yaml"][0]["metadata"]["name"]
    shared = [base_files()]
    if "controller.yaml" in files:
        shared.append(dashboard_files())
    return [
        *files.pop("namespace.yaml"),
        *(o for found in shared for objects in found.values() for o in _in(namespace, objects)),
        *(o for objects in files.values() for o in objects),
    ]


def _cluster(catalogue: Catalogue, name: str) -> Cluster:
    cluster = catalogue.clusters.get(name)
    known = sorted(c.name for c in catalogue.clusters.values() if c.kind == "kuberay")
    if cluster is None or cluster.kind != "kuberay":
        what = "no cluster" if cluster is None else "not a kuberay cluster"
        raise RenderError(f"{what}: '{name}'; there is {', '.join(known) or 'none of that kind'}")
    return cluster


def _namespace(name: str) -> Object:
    made = obj("v1", "Namespace", name)
    made["metadata"]["labels"] = {**made["metadata"]["labels"], **POD_SECURITY}
    return made


def _gateway_budget() -> Object:
    """There is one pod, and whoever takes it away has to mean it. Controllers have no budget: one
    may be evicted at any time, and of two one is never ready."""
    return pools.budget("gateway", {**GATEWAY, NODE_TYPE: "worker"}, 1)


CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding")


def _in(namespace: str, objects: Iterable[Object]) -> list[Object]:
    """The objects in the namespace, and accounts that are bound to roles too."""
    return [_placed(namespace, o) for o in objects]


def _placed(namespace: str, made: Object) -> Object:
    if made["kind"] in CLUSTER_WIDE:
        return made
    placed = {**made, "metadata": {**made["metadata"], "namespace": namespace}}
    if "subjects" in made:
        placed["subjects"] = [{**s, "namespace": namespace} for s in made["subjects"]]
    return placed
