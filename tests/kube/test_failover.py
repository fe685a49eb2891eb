"""Two controllers and one Lease: whoever is left goes on, whoever was left out changes nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client

from orchestrator.pools.ray_service import wanted
from tests.kube.operator import Operator

TAKE_OVER_S = 15
PATIENCE_S = 60


@contextmanager
def controller(
    namespace: str, kubeconfig: Path, name: str, target: int
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kube.candidate_leader", namespace, name, str(target)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def eventually(told: Callable[[], bool], within_s: float = PATIENCE_S) -> float:
    """Seconds until it was so."""
    began_s = time.monotonic()
    while not told():
        assert time.monotonic() - began_s < within_s
        time.sleep(0.05)
    return time.monotonic() - began_s


def holder(admin: client.ApiClient, namespace: str) -> str:
    leases = client.CoordinationV1Api(admin).list_namespaced_lease(namespace).items
    return str(leases[0].spec.holder_identity) if leases else ""


def number(operator: Operator) -> int:
    return sum(wanted(service) for service in operator.services())


@pytest.mark.usefixtures("in_force")
def test_the_standby_goes_on_with_a_scale_up_that_the_leader_began(
    operator: Operator, admin: client.ApiClient, kubeconfig: Path
) -> None:
    namespace = operator.namespace
    with (
        controller(namespace, kubeconfig, "first", 30) as first,
        controller(namespace, kubeconfig, "second", 30) as second,
    ):
        eventually(lambda: number(operator) >= 3)
        leader = holder(admin, namespace)
        os.kill((first if leader == "first" else second).pid, signal.SIGKILL)
        left_at = number(operator)
        assert left_at < 30
        assert eventually(lambda: number(operator) > left_at) < TAKE_OVER_S
        assert holder(admin, namespace) not in ("", leader)
        eventually(lambda: number(operator) == 30)
        assert len(operator.services()) == 1


@pytest.mark.usefixtures("in_force")
def test_a_leader_that_was_paused_changes_nothing_when_it_wakes(
    operator: Operator, admin: client.ApiClient, kubeconfig: Path
) -> None:
    namespace = operator.namespace
    with controller(namespace, kubeconfig, "first", 7) as first:
        eventually(lambda: number(operator) == 7)
        with controller(namespace, kubeconfig, "second", 3):
            os.kill(first.pid, signal.SIGSTOP)
            eventually(lambda: number(operator) == 3)
            version = operator.services()[0]["metadata"]["resourceVersion"]
            os.kill(first.pid, signal.SIGCONT)
            eventually(lambda: holder(admin, namespace) == "second")
            time.sleep(3)
            assert operator.services()[0]["metadata"]["resourceVersion"] == version
