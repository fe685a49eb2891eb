"""Pools in a cluster: the RayServices that the controller makes too, and what protects them."""

from orchestrator.manifests.parts import NODE_TYPE, Object, obj
from orchestrator.policy.candidate import Candidate
from orchestrator.pools.ray_service import labels, ray_service


def service(candidate: Candidate) -> Object:
    """The same that the controller applies. Apply it as the controller's field manager, or the
    number of replicas has two owners."""
    return ray_service(candidate, candidate.pool.min_replicas)


def budgets(candidate: Candidate) -> list[Object]:
    """Nothing is evicted before what replaces it serves: the controller orders that when it sees
    the node drained. Pods without a scale take a number to keep, not one to lose."""
    name = candidate.service_name
    return [
        _budget(name, candidate, "worker", max(candidate.pool.min_replicas, 1)),
        _budget(f"{name}-head", candidate, "head", 1),
    ]


def _budget(name: str, candidate: Candidate, node_type: str, kept: int) -> Object:
    return budget(name, {**labels(candidate), NODE_TYPE: node_type}, kept)


def budget(name: str, chosen: dict[str, str], kept: int) -> Object:
    return obj(
        "policy/v1",
        "PodDisruptionBudget",
        name,
        spec={"minAvailable": kept, "selector": {"matchLabels": chosen}},
    )
