"""What Kubernetes says of pods and nodes, in the words of `Replicas`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.pools.actuator import Replicas, cut
from orchestrator.pools.ray_service import ENDPOINT, MANAGER, URL, wanted

NOTICES = (
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/out-of-service",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "cloud.google.com/impending-node-termination",
    "aws-node-termination-handler/",
)
"""Taints, or what they begin with, of nodes that are drained or about to be lost. Azure marks its
spot nodes all their life; its notice is a condition, or the cordon that follows."""
ENDING_CONDITIONS = ("VMEventScheduled", "TerminationScheduled")
STUCK = (
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Reasons for which a container waits that do not pass by themselves."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of one of our endpoints."""

    name: str
    endpoint: str
    node: str
    head: bool
    ready: bool
    deleted: bool
    disrupted: bool
    """It is evicted or preempted, not taken away because nobody needs it."""
    over: bool
    """Its containers have ended for good; another pod comes in its place."""
    created_s: float
    trouble: str | None


@dataclass(frozen=True, slots=True)
class Service:
    """A RayService of ours."""

    name: str
    uid: str
    endpoint: str
    url: str | None
    wanted: int
    deleted: bool
    applied_s: float
    """When what we own of it last changed."""
    trouble: str | None
    hopeless: bool
    """The operator tries no more."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A RayCluster of ours, made by KubeRay for a RayService."""

    name: str
    uid: str
    owner: str | None
    """The uid of its RayService."""
    endpoint: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    notice: str | None
    """Why it will be lost."""


def pod(item: dict[str, Any]) -> Pod:
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = _conditions(status)
    phase = status.get("phase")
    return Pod(
        name=metadata["name"],
        endpoint=(metadata.get("annotations") or {}).get(ENDPOINT, ""),
        node=(item.get("spec") or {}).get("nodeName") or "",
        head=(metadata.get("labels") or {}).get("ray.io/node-type") == "head",
        ready=_true(conditions, "Ready"),
        deleted=metadata.get("deletionTimestamp") is not None,
        disrupted=_true(conditions, "DisruptionTarget"),
        over=phase in ("Failed", "Succeeded"),
        created_s=_seconds(metadata.get("creationTimestamp")),
        trouble=_pod_trouble(metadata["name"], status, conditions),
    )


def node(item: dict[str, Any]) -> Node:
    metadata, spec = item["metadata"], item.get("spec") or {}
    conditions = _conditions(item.get("status") or {})
    found = [t["key"] for t in spec.get("taints") or [] if str(t["key"]).startswith(NOTICES)]
    found += [name for name in ENDING_CONDITIONS if _true(conditions, name)]
    if spec.get("unschedulable"):
        found.append("cordoned")
    if metadata.get("deletionTimestamp"):
        found.append("deleted")
    return Node(metadata["name"], found[0] if found else None)


def service(item: dict[str, Any]) -> Service:
    metadata, status = item["metadata"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    trouble, hopeless = _service_trouble(status)
    return Service(
        name=metadata["name"],
        uid=metadata["uid"],
        endpoint=annotations.get(ENDPOINT, ""),
        url=annotations.get(URL),
        wanted=wanted(item),
        deleted=metadata.get("deletionTimestamp") is not None,
        applied_s=_applied_s(metadata),
        trouble=trouble,
        hopeless=hopeless,
    )


def ray_cluster(item: dict[str, Any]) -> RayCluster:
    metadata = item["metadata"]
    owners = [o["uid"] for o in metadata.get("ownerReferences") or [] if o["kind"] == "RayService"]
    return RayCluster(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=owners[0] if owners else None,
        endpoint=(metadata.get("annotations") or {}).get(ENDPOINT, ""),
        deleted=metadata.get("deletionTimestamp") is not None,
    )


def replicas_of(of: Service | None, pods: list[Pod], notices: Mapping[str, str]) -> Replicas:
    """Of one endpoint. `notices`: of nodes that will be lost. A worker pod is a replica: it is
    ready when Serve's proxy in it is, which is when a replica runs there.

    Serve counts a replica that is leaving until it is gone, so that many fewer of those it was told
    to run are there to stay; pods beyond them are on their way out.
    """
    workers = [p for p in pods if not p.head and not p.over]
    if of is None or of.deleted:
        return Replicas(stopping=len(workers), deployed=False)
    leaving = [p for p in workers if p.disrupted or p.node in notices]
    going = [p for p in workers if p.deleted and p not in leaving]
    staying = [p for p in workers if p not in leaving and p not in going]
    ready = [p for p in staying if p.ready]
    pending = [p for p in staying if not p.ready]
    standing = max(0, of.wanted - len(leaving))
    starting = max(0, standing - len(ready))
    trouble = next((p.trouble for p in pods if p.trouble and not p.ready), of.trouble)
    return Replicas(
        ready=min(len(ready), standing),
        starting=starting,
        stopping=len(going) + len(staying) - min(len(staying), standing),
        leaving=len(leaving),
        pending_since_s=min((p.created_s for p in pending), default=of.applied_s)
        if starting
        else None,
        deployed=not (of.hopeless and not ready),
        failed=trouble,
    )


def _conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in status.get("conditions") or []}


def _true(conditions: dict[str, dict[str, Any]], kind: str) -> bool:
    return conditions.get(kind, {}).get("status") == "True"


def _pod_trouble(
    name: str, status: dict[str, Any], conditions: dict[str, dict[str, Any]]
) -> str | None:
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        ended = (container.get("state") or {}).get("terminated") or {}
        before = (container.get("lastState") or {}).get("terminated") or {}
        # Why it crashes says more than that it does.
        if "OOMKilled" in (ended.get("reason"), before.get("reason")):
            return f"pod {name}: OOMKilled"
        if waiting.get("reason") in STUCK:
            return _reason(name, waiting)
    if status.get("phase") == "Failed":
        return _reason(name, {"reason": "Failed"} | status)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return _reason(name, scheduled)
    return None


def _service_trouble(status: dict[str, Any]) -> tuple[str | None, bool]:
    """Why it does not serve, and whether its operator has given it up."""
    ready = _conditions(status).get("Ready", {})
    if ready.get("reason") in ("ValidationFailed", "InitializingTimeout"):
        return _reason("RayService", ready), True
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        for application in ((status.get(part) or {}).get("applicationStatuses") or {}).values():
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                said = {"reason": application["status"], "message": application.get("message")}
                return _reason("Serve", said), application["status"] == "DEPLOY_FAILED"
    return None, False


def _reason(what: str, said: dict[str, Any]) -> str:
    who = what if what in ("RayService", "Serve") else f"pod {what}"
    message = f": {said['message']}" if said.get("message") else ""
    return cut(f"{who}: {said.get('reason')}{message}")


def _applied_s(metadata: dict[str, Any]) -> float:
    times = [
        _seconds(entry.get("time"))
        for entry in metadata.get("managedFields") or []
        if entry.get("manager") == MANAGER and not entry.get("subresource")
    ]
    return max(times, default=_seconds(metadata.get("creationTimestamp")))


def _seconds(timestamp: str | None) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
