"""A Kubernetes API server for the tests: one that is given, or one that was built for them."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.kube.apiserver import BINARIES, ApiServer
from tests.kube.fault_server import FaultServer
from tests.kube.operator import Operator
from tests.kube.worlds import KUBECONFIG_ENV

GIVEN = "ORCHESTRATOR_TEST_KUBECONFIG"
"""Not KUBECONFIG itself: tests change the cluster, so somebody has to want that."""
CRDS = Path(__file__).parent / "crds.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kube)


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of somebody who may do anything in the cluster."""
    if given := os.environ.get(GIVEN):
        yield Path(given)
    elif (BINARIES / "kube-apiserver").exists():
        with ApiServer(tmp_path_factory.mktemp("kubernetes")) as server:
            yield server.kubeconfig()
    else:
        pytest.skip("no Kubernetes API server: `make test-kube` builds one, or takes a KUBECONFIG")


@pytest.fixture(scope="session")
def admin(kubeconfig: Path) -> client.ApiClient:
    api: client.ApiClient = config.new_client_from_config(str(kubeconfig))
    extensions = client.ApiextensionsV1Api(api)
    for crd in yaml.safe_load_all(CRDS.read_text()):
        try:
            extensions.create_custom_resource_definition(crd)
        except ApiException as error:
            if error.status != 409:
                raise
    _wait_for_crds(api)
    return api


@pytest.fixture
def namespace(admin: client.ApiClient) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    core = client.CoreV1Api(admin)
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def operator(admin: client.ApiClient, namespace: str) -> Iterator[Operator]:
    operator = Operator(admin, namespace)
    yield operator
    operator.clear()


@pytest.fixture
def in_force(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubeconfig where clusters of `worlds` look for it."""
    monkeypatch.setenv(KUBECONFIG_ENV, str(kubeconfig))


@pytest.fixture
def faults(
    admin: client.ApiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultServer]:
    """The same, through a server that can be told to fail."""
    settings = admin.configuration
    headers: dict[str, str] = {}
    admin.update_params_for_auth(headers, [], ["BearerToken"], "/", "GET", None)
    pool = admin.rest_client.pool_manager
    with FaultServer(pool, settings.host, headers) as server:
        path = tmp_path / "faults.kubeconfig"
        path.write_text(yaml.safe_dump(_plain(server.url)))
        monkeypatch.setenv(KUBECONFIG_ENV, str(path))
        yield server


def _plain(url: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "nobody"}}],
        "current-context": "test",
    }


def _wait_for_crds(api: client.ApiClient) -> None:
    import time

    custom = client.CustomObjectsApi(api)
    for _ in range(100):
        try:
            for kind in ("rayservices", "rayclusters"):
                custom.list_namespaced_custom_object("ray.io", "v1", "default", kind)
        except ApiException:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server does not take the CustomResourceDefinitions")
