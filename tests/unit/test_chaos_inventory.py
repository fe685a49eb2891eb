"""What counts as without an owner, and whose a process is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.config.load import load
from orchestrator.stack import processes, ray_head
from tests.benchmarks.chaos.inventory import (
    PORT,
    Application,
    Inventory,
    Running,
    cluster_of,
    expected_applications,
    left_behind,
    members,
    read_applications,
    unowned,
)
from tests.benchmarks.chaos.world import NotSeen, kill, leader
from tests.e2e.conftest import LOCAL

LOADED = load(LOCAL)
CLUSTERS = LOADED.configuration.clusters
RULES = expected_applications(LOADED)
HOME_APP, CLOUD_APP = "onprem-cpu--tiny-bf16", "cloud-cpu--tiny-bf16"
AT_REST = Inventory(
    {
        "onprem": {
            "gateway": Application({"GatewayDeployment": (11,)}),
            HOME_APP: Application({"LLMServer:tiny-bf16": (12,)}),
        },
        "cloud": {CLOUD_APP: Application({"LLMServer:tiny-bf16": ()})},
    },
    [
        *(Running(n, f"/ray/gcs_server --x {n}", c) for n, c in ((1, "onprem"), (2, "cloud"))),
        *(Running(n, f"/ray/raylet --x {n}", c) for n, c in ((3, "onprem"), (4, "cloud"))),
        Running(11, "ray::ServeReplica:gateway:GatewayDeployment", "onprem", (3,)),
        Running(12, "ray::ServeReplica:onprem-cpu--tiny-bf16:LLMServer", "onprem", (3,)),
        Running(13, "VLLM::EngineCore", "onprem", (12, 3)),
        Running(20, "python -m orchestrator.cli controller --fresh", None),
    ],
)


def test_the_rules_of_the_local_stack() -> None:
    assert RULES == {"onprem": {"gateway": -1, HOME_APP: 1}, "cloud": {CLOUD_APP: 0}}


def test_a_stack_at_rest_has_nothing_without_an_owner() -> None:
    assert unowned(AT_REST, RULES) == []


def test_an_application_that_was_never_deployed_is_not_missed_where_nothing_is_rented() -> None:
    assert (
        unowned(replace(AT_REST, applications={**AT_REST.applications, "cloud": {}}), RULES) == []
    )


@pytest.mark.parametrize(
    "process",
    [
        Running(30, "VLLM::EngineCore", "cloud", (4,)),
        Running(30, "VLLM::EngineCore", "onprem", (1,)),
        Running(30, "ray::ServeReplica:x:LLMServer", "cloud", (4,)),
        Running(30, "python -m orchestrator.cli controller", None),
        Running(30, "/ray/raylet --x", "cloud"),
        Running(30, "sleep 100", None),
    ],
)
def test_a_process_that_nobody_ordered_is_found(process: Running) -> None:
    assert len(unowned(replace(AT_REST, running=[*AT_REST.running, process]), RULES)) == 1


def test_replicas_and_applications_beyond_the_rules_are_found() -> None:
    cloud = {
        CLOUD_APP: Application({"LLMServer:tiny-bf16": (30,)}),
        "stranger": Application({}),
    }
    found = unowned(replace(AT_REST, applications={**AT_REST.applications, "cloud": cloud}), RULES)
    assert len(found) == 2


def test_what_the_controller_calls_unowned_is_found() -> None:
    assert unowned(replace(AT_REST, told=["unowned: x in cloud"]), RULES)


def test_serves_answer_is_read() -> None:
    deployments = {"LLMServer:m": {"replicas": [{"pid": 7}, {"pid": None}]}}
    found = read_applications({"applications": {"a": {"deployments": deployments}}})
    assert found["a"].pids("LLMServer:") == {7}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two marked processes by their environment, one by a log that it holds open, one stranger."""
    home = ray_head.directory(tmp_path, "cloud")
    home.mkdir(parents=True)
    marked = os.environ | {processes.MARK: str(tmp_path)}
    sleeping = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]

    def start(env: dict[str, str], command: list[str] = sleeping) -> subprocess.Popen[bytes]:
        found = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        assert found.stdout is not None
        found.stdout.readline()
        return found

    holds = f"import time; f = open({str(home / 'log')!r}, 'w'); print(flush=True); time.sleep(60)"
    found = {
        c.name: start(marked | {PORT: ray_head.environment(c, tmp_path)[PORT]}) for c in CLUSTERS
    }
    found["log"] = start(dict(os.environ), [sys.executable, "-c", holds])
    found["controller"] = start(marked)
    yield found
    for process in found.values():
        process.kill()
        process.communicate()
    (home / "log").unlink()
    home.rmdir()
    home.parent.rmdir()


def test_processes_are_told_apart_by_cluster(
    tmp_path: Path, started: dict[str, subprocess.Popen[bytes]]
) -> None:
    cloud = {p.pid for p in members(tmp_path, CLUSTERS, "cloud")}
    assert cloud == {started["cloud"].pid, started["log"].pid}
    assert [p.pid for p in members(tmp_path, CLUSTERS, "onprem")] == [started["onprem"].pid]
    one = psutil.Process(started["controller"].pid)
    assert cluster_of(one, tmp_path, CLUSTERS) is None
    assert len(left_behind(tmp_path, set())) >= 4


def test_killing_a_cluster_leaves_the_other(
    tmp_path: Path, started: dict[str, subprocess.Popen[bytes]]
) -> None:
    kill(members(tmp_path, CLUSTERS, "cloud"))
    assert not members(tmp_path, CLUSTERS, "cloud")
    assert started["onprem"].poll() is None


def test_the_leader_is_whose_name_stands_in_the_lock(tmp_path: Path) -> None:
    me = psutil.Process()
    (tmp_path / "controller.lock").write_text(f"a-host-{me.pid}-0a1b2c3d")
    assert leader(tmp_path, [me]) == me
    with pytest.raises(NotSeen):
        leader(tmp_path, [])
