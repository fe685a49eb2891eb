"""One Ray cluster on this machine, with every port and file its own."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config.spec import Cluster


class StackError(Exception):
    """Something did not start; the message says what, and where its log is."""


def root(state: Path) -> Path:
    """Ray's files and logs. Short, because Ray puts sockets there and their paths are limited."""
    digest = hashlib.sha256(str(state).encode()).hexdigest()[:6]
    return Path(tempfile.gettempdir()) / f"orc-{digest}"


def directory(state: Path, cluster: str) -> Path:
    return root(state) / cluster


def haproxy_directory(state: Path, cluster: Cluster) -> Path:
    """HAProxy's files. Serve adds 70 characters, and HAProxy takes 97 for the path of a socket."""
    assert cluster.launch is not None
    return root(state) / f"h{cluster.launch.port_base}"


def environment(cluster: Cluster, state: Path) -> dict[str, str]:
    """For `ray start` and everything that it starts."""
    assert cluster.launch is not None
    base = cluster.launch.port_base
    haproxy = haproxy_directory(state, cluster)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray makes its workers yield to everything else; here they are what the machine is for.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(base + 8),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(base + 9),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(base + 10),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(base + 11),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(base + 60),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(base + 89),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(base + 90),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(base + 99),
        **cluster.launch.env,
    }


def start(cluster: Cluster, state: Path, env: dict[str, str]) -> None:
    """Starts the head and returns when it is up. Raises StackError.

    Pins the calling thread: call it in a thread of its own.
    """
    assert cluster.launch is not None
    launch = cluster.launch
    base, home = launch.port_base, directory(state, cluster.name)
    shutil.rmtree(home, ignore_errors=True)
    haproxy = haproxy_directory(state, cluster)
    shutil.rmtree(haproxy, ignore_errors=True)
    haproxy.mkdir(parents=True)
    dashboard = urlsplit(cluster.dashboard_url or "")
    log = state / "logs" / f"ray-{cluster.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    ray = str(Path(sys.executable).with_name("ray"))
    command = [
        ray,
        "start",
        "--head",
        "--disable-usage-stats",
        f"--node-ip-address={launch.node_ip_address}",
        f"--num-cpus={launch.num_cpus}",
        f"--temp-dir={home}",
        f"--port={base}",
        f"--node-manager-port={base + 1}",
        f"--object-manager-port={base + 2}",
        f"--ray-client-server-port={base + 3}",
        f"--metrics-export-port={base + 4}",
        f"--dashboard-agent-listen-port={base + 5}",
        f"--dashboard-agent-grpc-port={base + 6}",
        f"--runtime-env-agent-port={base + 7}",
        f"--min-worker-port={base + 12}",
        f"--max-worker-port={base + 59}",
        f"--dashboard-host={dashboard.hostname}",
        f"--dashboard-port={dashboard.port}",
        "--include-dashboard=true",
        "--include-log-monitor=false",  # it copies logs to drivers, and there is none
    ]
    _pin_this_thread(launch.cpus)
    with log.open("w") as out:
        done = subprocess.run(  # noqa: S603
            command, env=env | environment(cluster, state), stdout=out, stderr=out, check=False
        )
    if done.returncode != 0:
        raise StackError(f"Ray cluster '{cluster.name}' did not start; see {log}")


def _pin_this_thread(cpus: list[int]) -> None:
    """What a thread starts inherits its processors, and so does all that Ray starts in turn."""
    if not hasattr(os, "sched_setaffinity"):
        return
    present = os.sched_getaffinity(0) & set(cpus)
    if present:
        os.sched_setaffinity(0, present)
