"""Bringing the local stack up, step by step."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from orchestrator.config import keys
from orchestrator.config.load import Loaded, load
from orchestrator.config.store import Check, PolicyStore
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.ray import RayPools
from orchestrator.stack import processes, ray_head, tiny_model
from orchestrator.stack.ray_head import StackError
from orchestrator.stack.secrets import secret, write

READY_TIMEOUT_S = 600
DRAIN_MARGIN_S = 10
"""What a gateway may need beyond its longest answer before Serve ends it."""

Report = Callable[[str], None]
"""Told the name of each step as it begins."""


def environment(state: Path) -> dict[str, str]:
    """What every process of the stack gets, and what a client of its control plane needs."""
    # A replica starts five processes that import vLLM: without bytecode each compiles it again.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        processes.MARK: str(state),
        "ORCHESTRATOR_STATE": str(state),
        "ORCHESTRATOR_TOKEN": secret(state, "controller-token"),
        "ORCHESTRATOR_SESSION_KEY": secret(state, "session-key"),
        "RAY_AUTH_TOKEN": secret(state, "ray-token"),
    }


def up(directory: Path, state: Path, check: Check, report: Report) -> Loaded:
    """Applies the configuration, starts everything and returns when the home pools serve.

    `check` is what else must hold of the configuration. Raises ConfigurationError or StackError;
    what had been started then is for the caller to stop.
    """
    report("Checking the configuration")
    PolicyStore(state).apply(directory, check)
    loaded = load(directory)
    report("Clearing what an earlier run left")
    processes.stop_all(state)
    loaded = _with_keys(loaded, state)
    os.environ["RAY_AUTH_TOKEN"] = secret(state, "ray-token")
    env = environment(state)
    _models(loaded, state, env, report)

    launched = [c for c in loaded.configuration.clusters if c.launch is not None]
    report(f"Starting Ray clusters: {', '.join(c.name for c in launched)}")
    with ThreadPoolExecutor(len(launched) or 1) as pool:
        for future in [pool.submit(ray_head.start, c, state, env) for c in launched]:
            future.result()
    report("Deploying the gateway")
    asyncio.run(_deploy_gateway(loaded, state))
    report("Starting the controller")
    _start_controller(state, env)
    report("Waiting for the home pools to serve (a vLLM replica takes about a minute)")
    asyncio.run(_wait_until_ready(loaded, state))
    return loaded


def _with_keys(loaded: Loaded, state: Path) -> Loaded:
    """Every workload gets a key, whose plaintext stays on this machine."""
    held = {k.workload for k in loaded.configuration.keys}
    for workload in loaded.configuration.workloads:
        file = state / "keys" / workload.name
        if workload.name not in held or not file.exists():
            _, plaintext = keys.create(loaded.directory, workload.name)
            write(file, plaintext)
    return load(loaded.directory)


def _models(loaded: Loaded, state: Path, env: dict[str, str], report: Report) -> None:
    for model in loaded.configuration.models:
        for variant in model.variants:
            path = Path(variant.weights)
            if path.parent == state / "models" and not (path / "tokenizer.json").exists():
                report(f"Making the model {path.name}")
                done = subprocess.run(  # noqa: S603
                    [sys.executable, "-m", tiny_model.__name__, str(path)],
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode != 0:
                    raise StackError(f"the model could not be made: {done.stderr[-500:]}")


def gateway_application(loaded: Loaded, state: Path) -> dict[str, Any]:
    gateway = loaded.configuration.gateway
    return {
        "name": "gateway",
        "route_prefix": None,
        "import_path": "orchestrator.gateway.serve:build",
        "args": {"state": str(state)},
        "deployments": [
            {
                "name": "GatewayDeployment",
                "num_replicas": gateway.replicas,
                # A new version listens before an old one ends.
                "max_surge_percent": 100,
                "graceful_shutdown_timeout_s": gateway.timeouts.total_s + DRAIN_MARGIN_S,
                "ray_actor_options": {"num_cpus": 0.1},
            }
        ],
    }


async def _deploy_gateway(loaded: Loaded, state: Path) -> None:
    clusters = Catalogue(loaded.configuration, loaded.version).clusters
    cluster = clusters[loaded.configuration.gateway.cluster]
    if cluster.kind != "ray":
        raise StackError(f"cluster '{cluster.name}' of the gateway is not Ray's: apply manifests/")
    async with aiohttp.ClientSession() as session:
        try:
            await RayPools(cluster, session).deploy([gateway_application(loaded, state)])
        except PoolError as error:
            raise StackError(f"the gateway could not be deployed: {error}") from None


def _start_controller(state: Path, env: dict[str, str]) -> None:
    log = state / "logs" / "controller.log"
    with log.open("a") as out:
        subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "orchestrator.cli"),
                *("controller", "--fresh"),
            ],
            env=env,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


async def _wait_until_ready(loaded: Loaded, state: Path) -> None:
    """Until the gateway is ready and every pool has the replicas that it should always have."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    url = loaded.configuration.gateway.url
    token = secret(state, "controller-token")
    missing = "the gateway"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while time.monotonic() < deadline_s:
            try:
                async with session.get(f"{url}/readyz") as response:
                    ready = response.status == 200
                pools = (await controller_state(session, loaded, token))["pools"]
                short = [
                    p.name
                    for p in loaded.configuration.pools
                    if pools[p.name]["replicas_ready"] < p.min_replicas
                ]
                if ready and not short:
                    return
                missing = ", ".join(short) or missing
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(1)
    raise StackError(f"not ready in {READY_TIMEOUT_S} s: {missing}; see {state / 'logs'}")


async def controller_state(
    session: aiohttp.ClientSession, loaded: Loaded, token: str
) -> dict[str, Any]:
    """What the controller says of itself. Raises aiohttp.ClientError or TimeoutError."""
    url = f"{loaded.configuration.controller.url}/v1/state"
    async with session.get(url, headers={"authorization": f"Bearer {token}"}) as response:
        response.raise_for_status()
        return dict(await response.json())
