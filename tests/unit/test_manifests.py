"""What is shipped for Kubernetes is what the configuration says, locked down, and keeps data where
it may be."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.manifests import texts
from orchestrator.config.data_class import DataClass
from orchestrator.config.load import Loaded, load
from orchestrator.manifests.parts import GATEWAY
from orchestrator.manifests.render import everything
from orchestrator.manifests.shipped import OVERLAYS, shipped
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.ray_service import CLUSTER, MANAGED_BY, labels

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
Object = dict[str, Any]


def configuration(overlay: str) -> Loaded:
    return load(ROOT / OVERLAYS[overlay]["config"])


def objects(overlay: str) -> list[Object]:
    how = OVERLAYS[overlay]
    return everything(configuration(overlay), how["cluster"], how.get("single_node", False))


ALL = {overlay: objects(overlay) for overlay in OVERLAYS}


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    return {o["metadata"]["name"]: o for o in ALL[overlay] if o["kind"] == kind}


def key(o: Object) -> tuple[str, str, str]:
    return o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]


def templates() -> Iterator[tuple[str, Object]]:
    """Every pod that is described anywhere, with the object that it stands in."""
    for overlay, made in ALL.items():
        for o in made:
            yield from ((f"{overlay} {key(o)}", pod) for pod in _templates(o))


def _templates(value: Any) -> Iterator[Object]:
    if isinstance(value, dict):
        if "template" in value and "spec" in value["template"]:
            yield value["template"]
        for inside in value.values():
            yield from _templates(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _templates(inside)


def test_what_is_shipped_is_what_the_configuration_says() -> None:
    made = {
        f"{folder}/{name}": text
        for folder, (files, kustomization) in shipped(ROOT).items()
        for name, text in texts(files, kustomization).items()
    }
    found = {
        file.relative_to(MANIFESTS).as_posix(): file.read_text()
        for file in MANIFESTS.rglob("*.yaml")
    }
    assert found == made, "run `make manifests`"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which has Kustomize")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_to_what_render_prints(overlay: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", MANIFESTS / "overlays" / overlay],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {key(o): o for o in yaml.safe_load_all(built.stdout)}
    how = OVERLAYS[overlay]
    arguments = ["--config", str(ROOT / how["config"]), "--cluster", how["cluster"]]
    single = ["--single-node"] if how.get("single_node") else []
    printed = CliRunner().invoke(app, ["manifests", "render", *arguments, *single])
    assert printed.exit_code == 0
    rendered = list(yaml.safe_load_all(printed.stdout))
    assert {key(o): o for o in rendered} == found
    assert len(rendered) == len(found)


def test_pods_have_no_privilege_and_no_place_to_write_but_their_own() -> None:
    seen = 0
    for where, pod in templates():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], where
        assert spec["securityContext"]["runAsUser"] > 0, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for volume in spec["volumes"]:
            assert "hostPath" not in volume, where
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"], where
            assert not locked["allowPrivilegeEscalation"], where
            assert locked["capabilities"] == {"drop": ["ALL"]}, where
            assert container["resources"]["limits"]["memory"], where
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
            seen += 1
    assert seen > 10


def test_the_controller_alone_gets_a_token_for_the_api_server() -> None:
    for overlay, made in ALL.items():
        for o in made:
            if o["kind"] == "ServiceAccount":
                assert o["automountServiceAccountToken"] is False, overlay
    for where, pod in templates():
        asked = pod["spec"].get("automountServiceAccountToken", False)
        account = pod["spec"].get("serviceAccountName", "default")
        assert asked == (account == "controller"), where


def test_no_secret_is_written_down() -> None:
    for overlay, made in ALL.items():
        assert not [o for o in made if o["kind"] == "Secret"], overlay
        configured = [o for o in made if o["metadata"]["name"].startswith("configuration-")]
        assert all("keys.yaml" not in o["data"] for o in configured), overlay
    for where, pod in templates():
        for container in pod["spec"]["containers"]:
            named = {e["name"] for e in container["env"] if "value" in e}
            assert not {n for n in named if "TOKEN" in n or n.endswith("_KEY")}, where


# What NetworkPolicies come to: a pod may do what any policy that chooses it allows.


def policies(overlay: str, pod: dict[str, str], direction: str) -> list[Object]:
    """Rules of one direction that hold for a pod; it must be restricted in it at all."""
    chosen = [
        p["spec"]
        for p in of_kind(overlay, "NetworkPolicy").values()
        if p["spec"]["podSelector"].get("matchLabels", {}).items() <= pod.items()
    ]
    assert any(direction.capitalize() in p["policyTypes"] for p in chosen)
    return [rule for p in chosen for rule in p.get(direction, [])]


def peers(overlay: str, pod: dict[str, str], direction: str) -> list[Object]:
    end = {"egress": "to", "ingress": "from"}[direction]
    found = []
    for rule in policies(overlay, pod, direction):
        assert rule.get(end), f"{overlay}: {rule} has no bound"
        found += rule[end]
    return found


DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


def pool_pods() -> Iterator[Any]:
    for overlay, how in OVERLAYS.items():
        loaded = configuration(overlay)
        for candidate in Catalogue(loaded.configuration, loaded.version).candidates.values():
            if candidate.cluster.name == how["cluster"]:
                for node_type in ("head", "worker"):
                    pod = {**labels(candidate), "ray.io/node-type": node_type}
                    yield pytest.param(
                        overlay, candidate, pod, id=f"{overlay}-{candidate.pool.name}-{node_type}"
                    )


@pytest.mark.parametrize(("overlay", "candidate", "pod"), list(pool_pods()))
def test_a_pool_reaches_its_own_pods_and_what_its_kind_of_data_allows(
    overlay: str, candidate: Any, pod: dict[str, str]
) -> None:
    allowed = peers(overlay, pod, "egress")
    own = {MANAGED_BY: "orchestrator", "orchestrator/pool": candidate.pool.name}
    assert {"podSelector": {"matchLabels": own}} in allowed
    outside = [p["ipBlock"] for p in allowed if "ipBlock" in p]
    inside = [p for p in allowed if "ipBlock" not in p]
    assert all(p in (DNS, {"podSelector": {"matchLabels": own}}) for p in inside)
    api_server = candidate.cluster.kubernetes.api_server
    beyond = [b for b in outside if b["cidr"] not in api_server]
    if pod["ray.io/node-type"] == "worker":
        assert len(outside) == len(beyond)
    if candidate.zone.max_data_class is DataClass.RESTRICTED:
        assert not beyond
    for block in beyond:
        assert {"169.254.0.0/16", "10.0.0.0/8"} <= set(block["except"])


@pytest.mark.parametrize(("overlay", "candidate", "pod"), list(pool_pods()))
def test_a_pool_is_asked_by_gateway_controller_and_monitoring_alone(
    overlay: str, candidate: Any, pod: dict[str, str]
) -> None:
    own = {MANAGED_BY: "orchestrator", "orchestrator/pool": candidate.pool.name}
    asked_by = set()
    for peer in peers(overlay, pod, "ingress"):
        chosen = (peer.get("podSelector") or peer["namespaceSelector"])["matchLabels"]
        if chosen != own:
            asked_by.add(chosen.get("app.kubernetes.io/component") or next(iter(chosen)))
    with_gateway = {"gateway", "controller"}
    assert asked_by == {"orchestrator/operator", "orchestrator/monitoring"} | (
        {"orchestrator/ingress"} if overlay == "burst" else with_gateway
    )


def test_a_pool_for_restricted_data_that_would_fetch_its_weights_is_refused(
    tmp_path: Path,
) -> None:
    directory = shutil.copytree(ROOT / "clusters" / "single-node", tmp_path / "c")
    file = directory / "all.yaml"
    file.write_text(file.read_text().replace("/models/chat-8b-fp8", "org/chat"))
    done = CliRunner().invoke(app, ["manifests", "render", "--config", str(directory)])
    assert done.exit_code == 2
    assert "has no way out" in done.stderr
    assert "kubernetes.weights_claim" in done.stderr


SECOND_POOL = """\
  - {name: gpu-, cluster: node, accelerator: L40S, max_replicas: 1, provision_s: 1,
     price: {fixed_usd_per_gpu_hour: 1}}

models:
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"http://0.0.0.0:8000": "http://10.0.0.1:8000"}, "write http://0.0.0.0:8000"),
        (
            {"      api_server: [10.43.0.1/32, 192.0.2.10/32]\n": ""},
            "give kubernetes.api_server",
        ),
        ({"lease: orchestrator/": "lease: another/"}, "write orchestrator/orchestrator-controller"),
        # A policy of the one would hold for the other.
        (
            {"\nmodels:\n": SECOND_POOL, "pools: [gpu]": "pools: [gpu, gpu-]"},
            "pools 'gpu' and 'gpu-' have one name",
        ),
    ],
)
def test_what_cannot_be_rendered_says_what_to_write(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    directory = shutil.copytree(ROOT / "clusters" / "single-node", tmp_path / "c")
    file = directory / "all.yaml"
    text = file.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    done = CliRunner().invoke(app, ["manifests", "render", "--config", str(directory)])
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_cluster_that_kubernetes_does_not_run_is_refused() -> None:
    done = CliRunner().invoke(
        app, ["manifests", "render", "--config", str(ROOT / "clusters/local")]
    )
    assert done.exit_code == 2
    assert "not a kuberay cluster: 'onprem'" in done.stderr


@pytest.mark.parametrize("overlay", ["onprem", "single-node"])
def test_a_pod_sees_the_configuration_as_it_is(overlay: str, tmp_path: Path) -> None:
    loaded = configuration(overlay)
    (made,) = (o for name, o in of_kind(overlay, "ConfigMap").items() if "configuration" in name)
    deployment = of_kind(overlay, "Deployment")["controller"]
    (volume,) = (
        v["projected"]
        for v in deployment["spec"]["template"]["spec"]["volumes"]
        if v["name"] == "configuration"
    )
    source = volume["sources"][0]["configMap"]
    assert source["name"] == made["metadata"]["name"]
    for item in source["items"]:
        file = tmp_path / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made["data"][item["key"]])
    assert load(tmp_path).version == loaded.version
    assert made["metadata"]["name"] == f"configuration-{loaded.version}"


@pytest.mark.parametrize("overlay", ["onprem", "single-node"])
def test_a_gateway_that_goes_has_the_time_of_its_longest_answer(overlay: str) -> None:
    total_s = configuration(overlay).configuration.gateway.timeouts.total_s
    spec = of_kind(overlay, "RayService")["gateway"]["spec"]
    (application,) = json.loads(spec["serveConfigV2"])["applications"]
    (deployment,) = application["deployments"]
    (worker,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    pod = worker["template"]["spec"]
    leave = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    for waits_s in (
        deployment["graceful_shutdown_timeout_s"],
        spec["rayClusterDeletionDelaySeconds"],
        float(leave[-1]),
    ):
        assert waits_s > total_s
    assert pod["terminationGracePeriodSeconds"] > float(leave[-1])


@pytest.mark.parametrize("overlay", ["onprem", "single-node"])
def test_what_the_controller_would_take_for_a_pool_is_one(overlay: str) -> None:
    """It takes away what bears its mark and is no pool of the rules."""
    for o in ALL[overlay]:
        marked = o["metadata"]["labels"].get(MANAGED_BY)
        assert (marked is not None) == (CLUSTER in o["metadata"]["labels"])
        if marked:
            assert o["kind"] == "RayService"
    for _, pod in templates():
        if pod["metadata"]["labels"].items() >= GATEWAY.items():
            assert MANAGED_BY not in pod["metadata"]["labels"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_may_not_be_evicted_together_has_a_budget(overlay: str) -> None:
    """Pods whose owner has no scale take `minAvailable` alone."""
    budgets = of_kind(overlay, "PodDisruptionBudget")
    loaded, cluster = configuration(overlay), OVERLAYS[overlay]["cluster"]
    for candidate in Catalogue(loaded.configuration, loaded.version).candidates.values():
        if candidate.cluster.name == cluster:
            kept = budgets[candidate.service_name]["spec"]["minAvailable"]
            assert kept == max(1, candidate.pool.min_replicas)
    assert all("minAvailable" in budget["spec"] for budget in budgets.values())
    assert ("gateway" in budgets) == (overlay != "burst")


def test_the_image_runs_as_the_user_that_pods_are_given() -> None:
    lines = (MANIFESTS / "Containerfile").read_text().splitlines()
    user = next(line.split()[1] for line in lines if line.startswith("USER "))
    for where, pod in templates():
        assert pod["spec"]["securityContext"]["runAsUser"] == int(user), where
