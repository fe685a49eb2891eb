"""What is shipped is taken by a real API server, and the rights in it are those of the controller
and no others."""

from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from orchestrator.config.load import load
from orchestrator.manifests.base import CONTROLLER_ACCOUNT, LEASE, node_reader
from orchestrator.manifests.render import base_files, everything
from orchestrator.manifests.shipped import OVERLAYS
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.ray_service import MANAGER, ray_service
from tests.unit.test_manifests import ROOT

Object = dict[str, Any]

OPERATORS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
"""Kinds that a cluster has with Prometheus' operator alone."""


def apply(
    server: DynamicClient,
    made: Object,
    namespace: str,
    *,
    manager: str = MANAGER,
    dry: bool = False,
) -> Any:
    """By server-side apply, which refuses fields that it does not know. None where the server has
    no such kind."""
    placed = {**made, "metadata": {**made["metadata"]}}
    if "namespace" in placed["metadata"]:
        placed["metadata"]["namespace"] = namespace
    try:
        resource = server.resources.get(api_version=made["apiVersion"], kind=made["kind"])
    except ResourceNotFoundError:
        if made["kind"] in OPERATORS:
            return None
        # Servers before 1.21 know the same fields under another version.
        assert made["apiVersion"] == "policy/v1"
        placed["apiVersion"] = "policy/v1beta1"
        resource = server.resources.get(api_version="policy/v1beta1", kind=made["kind"])
    return server.server_side_apply(
        resource,
        body=placed,
        namespace=placed["metadata"].get("namespace"),
        field_manager=manager,
        **({"dry_run": "All"} if dry else {}),
    )


@pytest.fixture
def server(admin: client.ApiClient) -> DynamicClient:
    return DynamicClient(admin)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_object(server: DynamicClient, namespace: str, overlay: str) -> None:
    how = OVERLAYS[overlay]
    loaded = load(ROOT / how["config"])
    made = everything(loaded, how["cluster"], how.get("single_node", False))
    refused, taken = [], set()
    for o in made:
        try:
            if apply(server, o, namespace, dry=True) is not None:
                taken.add(o["kind"])
        except ApiException as error:
            refused.append((o["kind"], o["metadata"]["name"], error.body))
    assert not refused
    assert taken >= {o["kind"] for o in made} - OPERATORS


def may(admin: client.ApiClient, of: str, verb: str, **what: str) -> bool:
    """Whether the controller's account of the namespace may do it, there or where `what` says."""
    review = client.AuthorizationV1Api(admin).create_subject_access_review(
        {
            "spec": {
                "user": f"system:serviceaccount:{of}:{CONTROLLER_ACCOUNT}",
                "resourceAttributes": {"verb": verb, "namespace": of} | what,
            }
        }
    )
    return bool(review.status.allowed)


def test_the_controller_may_do_what_it_does_and_nothing_else(
    admin: client.ApiClient, server: DynamicClient, namespace: str
) -> None:
    files = base_files()
    bound = node_reader(namespace)
    for made in [*files["accounts.yaml"], *files["roles.yaml"]]:
        placed = {**made, "metadata": {**made["metadata"], "namespace": namespace}}
        if "subjects" in placed:
            placed["subjects"] = [{**s, "namespace": namespace} for s in placed["subjects"]]
        if made["kind"] == "ClusterRole":
            placed = made
        apply(server, placed, namespace)
    apply(server, bound, namespace)
    try:
        lease = {"group": "coordination.k8s.io", "resource": "leases"}
        ray = {"group": "ray.io", "resource": "rayservices"}
        for verb in ("list", "watch", "create", "patch", "delete"):
            assert may(admin, namespace, verb, **ray), verb
        assert may(admin, namespace, "create", **lease)
        for verb in ("get", "update"):
            assert may(admin, namespace, verb, name=LEASE, **lease)
            assert not may(admin, namespace, verb, name="another", **lease)
        assert may(admin, namespace, "watch", namespace="", group="", resource="nodes")
        for verb, group, resource in (
            ("get", "", "secrets"),
            ("list", "", "secrets"),
            ("get", "", "configmaps"),
            ("create", "", "pods"),
            ("delete", "", "pods"),
            ("create", "", "pods/exec"),
            ("patch", "", "nodes"),
            ("create", "ray.io", "rayclusters"),
            ("delete", "coordination.k8s.io", "leases"),
            ("create", "rbac.authorization.k8s.io", "rolebindings"),
        ):
            assert not may(admin, namespace, verb, group=group, resource=resource), resource
        assert not may(admin, namespace, "list", namespace="default", **ray)
    finally:
        rbac = client.RbacAuthorizationV1Api(admin)
        rbac.delete_cluster_role_binding(bound["metadata"]["name"])
        rbac.delete_cluster_role(bound["roleRef"]["name"])


def test_a_pool_that_was_applied_as_the_controller_is_the_controllers(
    server: DynamicClient, namespace: str
) -> None:
    loaded = load(ROOT / OVERLAYS["onprem"]["config"])
    catalogue = Catalogue(loaded.configuration, loaded.version)
    candidate = next(c for c in catalogue.candidates.values() if c.pool.min_replicas)
    apply(server, ray_service(candidate, candidate.pool.min_replicas), namespace)
    more = apply(server, ray_service(candidate, candidate.pool.min_replicas + 1), namespace)
    assert {m.manager for m in more.metadata.managedFields} == {MANAGER}


def test_a_pool_that_was_applied_as_somebody_else_is_refused_to_the_controller(
    server: DynamicClient, namespace: str
) -> None:
    loaded = load(ROOT / OVERLAYS["onprem"]["config"])
    catalogue = Catalogue(loaded.configuration, loaded.version)
    candidate = next(c for c in catalogue.candidates.values() if c.pool.min_replicas)
    apply(server, ray_service(candidate, 2), namespace, manager="kubectl")
    with pytest.raises(ApiException) as refused:
        apply(server, ray_service(candidate, 3), namespace)
    assert refused.value.status == 409
