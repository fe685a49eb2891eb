"""Who may do what in a cluster, whatever its configuration."""

from orchestrator.manifests.parts import CONTROLLER, GATEWAY, Object, obj
from orchestrator.pools.kubernetes_rights import IN_CLUSTER, IN_NAMESPACE

CONTROLLER_ACCOUNT = "controller"
GATEWAY_ACCOUNT = "gateway"
LEASE = "orchestrator-controller"
NODES_ROLE = "orchestrator-nodes"


def accounts() -> list[Object]:
    """The controller's account, and an end to the token that every pod would get."""
    return [
        # The account of pods that name none: replicas of pools among them.
        obj("v1", "ServiceAccount", "default", automountServiceAccountToken=False),
        obj(
            "v1",
            "ServiceAccount",
            GATEWAY_ACCOUNT,
            labels=GATEWAY,
            automountServiceAccountToken=False,
        ),
        obj(
            "v1",
            "ServiceAccount",
            CONTROLLER_ACCOUNT,
            labels=CONTROLLER,
            automountServiceAccountToken=False,
        ),
    ]


def roles() -> list[Object]:
    """What the controller asks of the API server, verb by verb."""
    subject = {"kind": "ServiceAccount", "name": CONTROLLER_ACCOUNT}
    group = "rbac.authorization.k8s.io"
    return [
        obj(
            f"{group}/v1",
            "Role",
            "controller",
            labels=CONTROLLER,
            rules=[
                *IN_NAMESPACE,
                # A name cannot be asked for at creation.
                _rule("coordination.k8s.io", "leases", "create"),
                _rule("coordination.k8s.io", "leases", "get", "update")
                | {"resourceNames": [LEASE]},
            ],
        ),
        obj(
            f"{group}/v1",
            "RoleBinding",
            "controller",
            labels=CONTROLLER,
            roleRef={"apiGroup": group, "kind": "Role", "name": "controller"},
            subjects=[subject],
        ),
        obj(
            f"{group}/v1",
            "ClusterRole",
            NODES_ROLE,
            labels=CONTROLLER,
            rules=IN_CLUSTER,
        ),
    ]


def node_reader(namespace: str) -> Object:
    """Binds the controller of a namespace to the role for nodes."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": CONTROLLER_ACCOUNT, "namespace": namespace}
    return obj(
        f"{group}/v1",
        "ClusterRoleBinding",
        f"{NODES_ROLE}-{namespace}",
        labels=CONTROLLER,
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": NODES_ROLE},
        subjects=[subject],
    )


def _rule(group: str, resource: str, *verbs: str) -> Object:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
