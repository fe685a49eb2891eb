"""What stands in `manifests/`: a base, and overlays made from example configurations."""

from pathlib import Path
from typing import Any

from orchestrator.config.load import load
from orchestrator.manifests.render import Files, base_files, cluster_files, dashboard_files

OVERLAYS: dict[str, dict[str, Any]] = {
    "onprem": {"config": "clusters/kubernetes", "cluster": "onprem"},
    "burst": {"config": "clusters/kubernetes", "cluster": "cloud"},
    "single-node": {"config": "clusters/single-node", "cluster": "node", "single_node": True},
}


def shipped(root: Path) -> dict[str, tuple[Files, dict[str, Any]]]:
    """Files and kustomization by folder below `manifests/`. `root` holds `clusters/`."""
    base, boards = base_files(), dashboard_files()
    made: dict[str, tuple[Files, dict[str, Any]]] = {
        "base": (base, {"resources": list(base)}),
        "base/dashboards": (boards, {"resources": list(boards)}),
    }
    for name, how in OVERLAYS.items():
        files = cluster_files(
            load(root / how["config"]), how["cluster"], how.get("single_node", False)
        )
        namespace = files["namespace.yaml"][0]["metadata"]["name"]
        shared = ["../../base"]
        if "controller.yaml" in files:
            shared.append("../../base/dashboards")
        made[f"overlays/{name}"] = (
            files,
            {"namespace": namespace, "resources": [*shared, *files]},
        )
    return made
