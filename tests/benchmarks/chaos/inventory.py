"""What exists: by Serve's dashboards, by the controller, and by the machine's own processes."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from orchestrator.config.load import Loaded
from orchestrator.config.spec import Cluster
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.ray import application_name
from orchestrator.stack import processes, ray_head

PORT = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"
"""A variable that all processes of a cluster have, each cluster's with a value of its own."""
SERVERS = "LLMServer:"
"""What the names of deployments with engines begin with."""
TITLES = re.compile(r"ray::|VLLM|haproxy|raylet|gcs_server|orchestrator(\.cli)? controller")


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    title: str
    cluster: str | None
    """None: of no Ray cluster."""
    ancestors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Application:
    """Of Serve, with the pids of its live replicas, by deployment."""

    replicas: Mapping[str, tuple[int, ...]]

    def pids(self, prefix: str = "") -> set[int]:
        return {p for name, pids in self.replicas.items() if name.startswith(prefix) for p in pids}


@dataclass(frozen=True, slots=True)
class Inventory:
    applications: Mapping[str, Mapping[str, Application]]
    """By cluster and name."""
    running: Sequence[Running]
    told: Sequence[str] = field(default=())
    """What the controller itself calls unowned or lost."""


def unowned(inventory: Inventory, expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What is beyond the rules, or missing. `expected`: replicas with engines, by cluster and by
    the applications that may exist; -1: of the gateway, which has no engine."""
    wrong = list(inventory.told)
    for cluster, applications in inventory.applications.items():
        rules = expected[cluster]
        wrong += [f"{cluster}: application {n}" for n in applications.keys() - rules.keys()]
        for name, count in rules.items():
            found = applications.get(name)
            engines = len(found.pids(SERVERS)) if found else 0
            if count < 0 and found is None:
                wrong.append(f"{cluster}: {name} is missing")
            elif count >= 0 and engines != count:
                wrong.append(f"{cluster}: {name} has {engines} replicas, not {count}")
        mine = [r for r in inventory.running if r.cluster == cluster]
        known = {pid for a in applications.values() for pid in a.pids()}
        served = {pid for a in applications.values() for pid in a.pids(SERVERS)}
        for process in mine:
            is_replica = process.title.startswith("ray::ServeReplica")
            if is_replica and process.pid not in known:
                wrong.append(f"{cluster}: {process.title} ({process.pid}) is no replica of Serve")
            if "VLLM" in process.title and not served & {process.pid, *process.ancestors}:
                wrong.append(f"{cluster}: {process.title} ({process.pid}) belongs to no replica")
        for name in ("gcs_server", "raylet"):
            count = sum(os.path.basename(r.title.split(" ")[0]) == name for r in mine)
            if count != 1:
                wrong.append(f"{cluster}: {count} × {name}")
    others = [r for r in inventory.running if r.cluster is None]
    controllers = [r for r in others if is_controller(r.title)]
    if len(controllers) != 1:
        wrong.append(f"{len(controllers)} controllers")
    wrong += [f"{r.title[:80]} ({r.pid})" for r in others if r not in controllers]
    return wrong


def is_controller(title: str) -> bool:
    return re.search(r"orchestrator(\.cli)? controller( |$)", title) is not None


def expected_applications(loaded: Loaded) -> dict[str, dict[str, int]]:
    """By the rules, while nobody bursts."""
    catalogue = Catalogue(loaded.configuration, loaded.version)
    rules: dict[str, dict[str, int]] = {
        cluster.name: {} for cluster in loaded.configuration.clusters if cluster.launch is not None
    }
    rules[loaded.configuration.gateway.cluster]["gateway"] = -1
    for candidate in catalogue.candidates.values():
        name = application_name(candidate)
        rules[candidate.cluster.name][name] = candidate.pool.min_replicas
    return rules


def take(loaded: Loaded, state: Path, told: dict[str, Any], token: str) -> Inventory:
    """`told`: the controller's state; `token`: of Ray's dashboards. Raises httpx.HTTPError."""
    clusters = [c for c in loaded.configuration.clusters if c.launch is not None]
    words = [f"unowned: {u['name']} in {u['cluster']}" for u in told["unowned"]]
    words += [f"cluster {name} is lost: {why}" for name, why in told["clusters_lost"].items()]
    return Inventory(
        {c.name: serve_applications(c, token) for c in clusters},
        running(state, clusters),
        words,
    )


def serve_applications(cluster: Cluster, token: str) -> dict[str, Application]:
    """By Serve's dashboard. Raises httpx.HTTPError."""
    answer = httpx.get(
        f"{cluster.dashboard_url}/api/serve/applications/",
        headers={"authorization": f"Bearer {token}"},
        timeout=30,
    )
    answer.raise_for_status()
    return read_applications(answer.json())


def read_applications(status: dict[str, Any]) -> dict[str, Application]:
    return {
        name: Application(
            {
                deployment: tuple(r["pid"] for r in told.get("replicas", []) if r.get("pid"))
                for deployment, told in application.get("deployments", {}).items()
            }
        )
        for name, application in status.get("applications", {}).items()
    }


def running(state: Path, clusters: Sequence[Cluster]) -> list[Running]:
    """The stack's live processes."""
    found = []
    for process in processes.running(state):
        with suppress(psutil.Error):
            found.append(
                Running(
                    process.pid,
                    " ".join(process.cmdline()).strip(),
                    cluster_of(process, state, clusters),
                    tuple(p.pid for p in process.parents()),
                )
            )
    return found


def cluster_of(process: psutil.Process, state: Path, clusters: Sequence[Cluster]) -> str | None:
    """By its environment; where its title was written over that, by the logs that it holds open,
    or by who started it."""
    for one in (process, *process.parents()):
        with suppress(psutil.Error):
            port = one.environ().get(PORT)
            logs = [file.path for file in one.open_files()]
            for cluster in clusters:
                if port is not None and port == ray_head.environment(cluster, state)[PORT]:
                    return cluster.name
                home = f"{ray_head.directory(state, cluster.name).resolve()}{os.sep}"
                if port is None and any(path.startswith(home) for path in logs):
                    return cluster.name
    return None


def members(state: Path, clusters: Sequence[Cluster], name: str) -> list[psutil.Process]:
    """Every process of one cluster."""
    return [p for p in processes.running(state) if _safely(p, state, clusters) == name]


def _safely(process: psutil.Process, state: Path, clusters: Sequence[Cluster]) -> str | None:
    with suppress(psutil.Error):
        return cluster_of(process, state, clusters)
    return None


def left_behind(state: Path, before: set[int]) -> list[str]:
    """Processes that began since, as a stack starts them: by the stack's own search, and by their
    titles, which that may miss."""
    found = {p.pid: p for p in processes.running(state)}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mark = process.environ().get(processes.MARK)
            title = " ".join(process.cmdline())
            is_others = mark not in (None, str(state))
            if process.pid not in before and not is_others and TITLES.search(title):
                found[process.pid] = process
    titles = []
    for process in found.values():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                titles.append(f"{' '.join(process.cmdline())[:100]} ({process.pid})")
    return titles
