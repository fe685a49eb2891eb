"""The gateways that are compared, each a process of its own before the same engine."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import uvloop
import yaml

from orchestrator.config import keys
from orchestrator.config.store import PolicyStore
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.collector import settle
from orchestrator.gateway.server import listen, server
from tests.benchmarks.gateways.engine import MODEL
from tests.benchmarks.gateways.load import Refused, Scenario, Target, measure

CONFIG = Path(__file__).parent / "clusters"
ENDPOINTS = [f"{pool}/instant-1" for pool in ("home-a", "home-b", "away")]
DIRECT, OURS, RUST, PORTKEY, LITELLM = "direct", "ours", "vllm-router", "Portkey", "LiteLLM"
IN_RAY, INGRESS = "ours, in Ray", "ours, ingress"
GATEWAY, CONTROLLER = "http://127.0.0.1:8000", "http://127.0.0.1:8100"
FRONT = "http://127.0.0.1:8001"
READY_TIMEOUT_S = 120


class Contenders:
    """Starts them, and ends them all with the context."""

    def __init__(self, folder: Path, peers: Path) -> None:
        """`folder` for configurations and logs, `peers` where the others are installed."""
        self._folder = folder
        self._peers = peers
        self._running = ExitStack()
        self.engine_port = free_port()

    def __enter__(self) -> "Contenders":
        self.start(
            "engine",
            [
                *(sys.executable, "-m", "tests.benchmarks.gateways.engine"),
                *("--port", str(self.engine_port), "--endpoints", *ENDPOINTS),
            ],
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.engine_port}"

    def start(
        self, name: str, command: list[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        return self._running.enter_context(
            process(command, self._folder / f"{name}.log", env or {})
        )

    def direct(self) -> Target:
        return Target(DIRECT, self.engine_port)

    def ours(self) -> Target:
        """With everything on, on a socket of its own, as its Serve replica runs it."""
        state, port = self._folder / "state", free_port()
        key = configured(state, self.engine_url, f"http://127.0.0.1:{port}", self.engine_url)
        gateway = self.start(
            "gateway",
            [sys.executable, "-m", "tests.benchmarks.gateways", "--serve", str(state)],
            {"ORCHESTRATOR_SESSION_KEY": "bench" * 8, "ORCHESTRATOR_TOKEN": "bench" * 8},
        )
        return Target(OURS, port, {"authorization": f"Bearer {key}"}, gateway.pid)

    def in_ray(self, report: Callable[[str], None]) -> list[Target]:
        """Ours as it is in production, managed by Serve on a socket of its own, and as an ordinary
        Serve ingress behind HAProxy. Raises StackError."""
        from orchestrator.stack import processes
        from orchestrator.stack.up import up
        from tests.benchmarks import ingress

        state = self._folder / "stack"
        configured(state, self.engine_url, GATEWAY, CONTROLLER)
        self._running.callback(processes.stop_all, state)
        loaded = up(state / "clusters", state, lambda _directory, _loaded: [], report)
        report("Deploying the ingress")
        asyncio.run(ingress.deploy(loaded, state))
        headers = {"authorization": f"Bearer {(state / 'keys' / 'bench').read_text().strip()}"}
        found = []
        for name, url in ((IN_RAY, GATEWAY), (INGRESS, FRONT)):
            found.append(Target(name, int(url.rpartition(":")[2]), headers))
        return found

    def rust(self) -> Target | str:
        """Or why it is not here."""
        program = self._peers / "bin" / "vllm-router"
        if not program.exists():
            return f"{program} is not there; `make bench-gateways` installs it"
        port, prometheus_port = free_port(), free_port()
        router = self.start(
            "vllm-router",
            [
                *(str(program), "--worker-urls", self.engine_url),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(prometheus_port)),
                *("--policy", "round_robin", "--log-level", "error"),
            ],
        )
        return Target(RUST, port, {}, router.pid)

    def portkey(self) -> Target | str:
        """Or why it is not here."""
        node = shutil.which("node")
        package = self._peers / "node_modules" / "@portkey-ai" / "gateway"
        program = package / "build" / "start-server.js"
        if node is None or not program.exists():
            return "it needs Node; with `node` and `npm` there, `make bench-gateways` installs it"
        port = free_port()
        gateway = self.start(
            "portkey",
            [node, str(program), f"--port={port}", "--headless"],
            {"NODE_ENV": "production"},
        )
        headers = {
            "authorization": "Bearer nobody",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{self.engine_url}/v1",
        }
        return Target(PORTKEY, port, headers, gateway.pid)

    def litellm(self) -> Target | str:
        """Or why it is not here."""
        program = self._peers / "bin" / "litellm"
        if not program.exists():
            return f"{program} is not there; `make bench-gateways` installs it"
        port, key = free_port(), "sk-bench"
        config = self._folder / "litellm.yaml"
        engine = {
            "model": f"openai/{MODEL}",
            "api_base": f"{self.engine_url}/v1",
            "api_key": "nobody",
        }
        config.write_text(
            yaml.safe_dump(
                {
                    "model_list": [{"model_name": MODEL, "litellm_params": engine}],
                    "general_settings": {"master_key": key},
                    "litellm_settings": {"telemetry": False},
                }
            )
        )
        proxy = self.start(
            "litellm",
            [
                *(str(program), "--config", str(config)),
                *("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
            ],
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        )
        return Target(LITELLM, port, {"authorization": f"Bearer {key}"}, proxy.pid)


def configured(state: Path, engine: str, gateway: str, controller: str) -> str:
    """Puts the configuration in force in this state directory. The key of its workload."""
    config = state / "clusters"
    text = (CONFIG / "bench.yaml").read_text()
    for name, url in (("ENGINE", engine), ("GATEWAY", gateway), ("CONTROLLER", controller)):
        text = text.replace(f"{name}_URL", url)
    shutil.rmtree(state, ignore_errors=True)
    config.mkdir(parents=True)
    (config / "bench.yaml").write_text(text)
    _, key = keys.create(config, "bench")
    PolicyStore(state).apply(config, lambda _directory, _loaded: [])
    return key


def serve(state: Path) -> None:
    """Our gateway, in this process."""
    gateway = Gateway(state)
    settle()
    server(gateway).run(sockets=[listen(gateway.spec.url)])


def wait_for(target: Target, streams: bool = True) -> None:
    """Until it passes chats on, and streams. Raises TimeoutError."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    trouble: Exception | None = None
    while time.monotonic() < deadline_s:
        try:
            for stream in (False, True)[: 1 + streams]:
                uvloop.run(measure(target, Scenario(1, 1024, stream), 0))
            return
        except (Refused, OSError) as error:
            trouble = error
            time.sleep(0.2)
    raise TimeoutError(f"{target.name} does not answer: {trouble}")


@contextmanager
def process(
    command: list[str], log: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Ended by its pid, with all that it started, at the end."""
    with log.open("wb") as out:
        started = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        for how, wait_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(started.pid, how)
                started.wait(wait_s)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def processor_s(pid: int | None) -> float:
    """Of the process and of all that it started."""
    if pid is None:
        return 0
    total = 0.0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
