"""How long a burst to warm capacity takes: from the moment at which the queue is longer than its
threshold to the first request on the burst pool. A real gateway and a real controller over HTTP,
ticks of one second, a simulated engine at home and one in the cloud that is up.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from orchestrator.config import keys
from orchestrator.config.load import load
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from tests.integration.engines import PLACES, serve_engine, serve_gateway

REQUESTS = 12
"""Home decodes two of them; more than the threshold wait."""
TOKENS, ITL_S = 200, 0.02

CONFIG = (
    PLACES
    + """
pools:
  - name: home-gpu
    cluster: home
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{fixed_usd_per_gpu_hour: 1}}
  - name: cloud-gpu
    cluster: away
    accelerator: GPU
    min_replicas: 1
    max_replicas: 1
    provision_s: 1
    price: {{fixed_usd_per_gpu_hour: 2}}
models:
  - name: m
    variants:
      - {{name: m-1, weights: org/m, pools: [home-gpu], max_model_len: 4096, max_num_seqs: 2}}
      - {{name: m-2, weights: org/m, pools: [cloud-gpu], max_model_len: 4096, max_num_seqs: 64}}
workloads:
  - name: assistant
    data_class: internal
    models: [m]
    allowed_zones: [onprem, cloud]
    slo: {{ttft_p95_s: 30}}
    price_ceiling: {{usd_per_gpu_hour: 3}}
    burst:
      pools: [cloud-gpu]
      queue_per_replica: 4
      sustained_s: 0
      release_sustained_s: 0.001
      min_dwell_s: 0.001
      cooldown_s: 0.001
gateway: {{url: "http://127.0.0.1:1", cluster: serve}}
controller: {{url: "{controller}", tick_s: 1, window_s: 1}}
"""
)


async def measure(repetitions: int, progress: Progress) -> list[dict[str, float]]:
    home = SimulatedEngine(EngineSpec("m", ttft_s=0.05, itl_s=ITL_S, max_num_seqs=2))
    away = SimulatedEngine(
        EngineSpec("m", ttft_s=0.05, itl_s=ITL_S, max_num_seqs=64), remember=True
    )
    holder: list[Controller] = []
    runner = web.AppRunner(application(lambda: holder[0]), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with tempfile.TemporaryDirectory() as state:
        directory = Path(state)
        async with (
            serve_engine(home) as home_url,
            serve_engine(away) as away_url,
            aiohttp.ClientSession() as session,
        ):
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            text = CONFIG.format(home=home_url, away=away_url, controller=url)
            (directory / "all.yaml").write_text(text)
            key = keys.create(directory, "assistant")[1]
            loaded = load(directory)
            catalogue = Catalogue(loaded.configuration, loaded.version)
            fleet = Fleet(catalogue, session)
            controller = Controller(catalogue, fleet, directory / "memory.json", time.time())
            holder.append(controller)
            ticking = asyncio.create_task(controller.run())
            try:
                async with serve_gateway(directory) as gateway:
                    await asyncio.sleep(3)
                    task = progress.add_task("bursts", total=repetitions)
                    found = []
                    for _ in range(repetitions):
                        found.append(await _burst(controller, away, session, gateway, key))
                        progress.advance(task)
            finally:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
                await fleet.stop()
                await runner.cleanup()
    return found


async def _burst(
    controller: Controller,
    away: SimulatedEngine,
    session: aiohttp.ClientSession,
    gateway: str,
    key: str,
) -> dict[str, float]:
    # At any moment of a tick.
    await asyncio.sleep(random.random())
    before, crossed_s = len(away.received), time.monotonic()
    asking = [asyncio.create_task(_ask(session, gateway, key)) for _ in range(REQUESTS)]
    seen = bursting = 0
    async with asyncio.timeout(30):
        while len(away.received) == before:
            state = controller.snapshot.bursts["assistant"]
            if not seen and (state.condition_since_s or state.phase is BurstPhase.BURSTING):
                seen, seen_s = controller.snapshot.version, time.monotonic()
            if not bursting and state.phase is BurstPhase.BURSTING:
                bursting = controller.snapshot.version
            await asyncio.sleep(0.002)
        first_s, version = time.monotonic(), controller.snapshot.version
        assert all(status == 200 for status in await asyncio.gather(*asking))
        while controller.snapshot.bursts["assistant"].phase is not BurstPhase.HOME:
            await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    return {
        "from_crossing_s": first_s - crossed_s,
        "from_seen_s": first_s - seen_s,
        "ticks_from_seen_to_burst": bursting - seen,
        "ticks_from_seen": version - seen,
    }


async def _ask(session: aiohttp.ClientSession, url: str, key: str) -> int:
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    headers = {"authorization": f"Bearer {key}"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("ORCHESTRATOR_TOKEN", secrets.token_hex())
    os.environ.setdefault("ORCHESTRATOR_SESSION_KEY", secrets.token_hex())
    with Progress(console=Console(stderr=True), transient=True) as progress:
        found = asyncio.run(measure(options.repetitions, progress))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("", "median", "max")
    for name in found[0]:
        values = np.array([one[name] for one in found])
        table.add_row(name.replace("_", " "), f"{np.median(values):.2f}", f"{values.max():.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
