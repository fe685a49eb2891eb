"""One controller with 200 pools and 2,000 replicas: how long a tick takes, what the process holds,
and how many calls a tick makes; beside it smaller fleets, by number of pools and of clusters.

The controller, its HTTP face included, is a process of its own. Dashboards, engines and gateways
are another one (`fleet_world.py`).
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from aiohttp import web
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from orchestrator.config.spec import Configuration
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.policy.catalogue import Catalogue
from tests.benchmarks.fleet_world import fleet

SHAPES = ((2, 20), (20, 20), (2, 200), (20, 200), (200, 200))
"""Clusters and pools."""
SETTLE_S = 15
"""From when every replica is there, until engines are warm and the latency windows are full."""
PATIENCE_S = 120


@dataclass(frozen=True, slots=True)
class Measured:
    clusters: int
    pools: int
    replicas: int
    ticks: int
    tick_p50_s: float
    tick_p99_s: float
    tick_max_s: float
    cpu_s_per_tick: float
    """Of the whole process, exchanges with gateways included."""
    rss_mb: float
    calls_per_tick: float
    calls_max: int
    """In any one tick, as the controller says itself."""
    asked_per_tick: dict[str, float]
    """By kind, as the clusters and engines count them."""
    exchange_p99_s: float
    bursting: tuple[int, int]
    """Fewest and most workloads that burst at once."""


def environment() -> dict[str, str]:
    return {**os.environ, "ORCHESTRATOR_TOKEN": "a-token"}


def measure(clusters: int, pools: int, seconds: float) -> Measured:
    world = _start("tests.benchmarks.fleet_world", str(clusters), str(pools))
    assert world.stdout is not None
    assert world.stdin is not None
    try:
        url = world.stdout.readline().strip()
        controller = _start(
            "tests.benchmarks.controller", "--child", url, str(clusters), str(pools), str(seconds)
        )
        assert controller.stdout is not None
        try:
            print(controller.stdout.readline().strip(), file=world.stdin, flush=True)
            return Measured(**json.loads(controller.stdout.readline()))
        finally:
            _end(controller)
    finally:
        _end(world)


def _start(module: str, *arguments: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment())


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    process.communicate()


async def control(world: str, clusters: int, pools: int, seconds: float) -> Measured:
    """A controller, in this process."""
    with tempfile.TemporaryDirectory() as state:
        async with aiohttp.ClientSession() as session:
            raw = fleet(clusters, pools, world, "http://127.0.0.1:1")
            catalogue = Catalogue(Configuration.model_validate(raw), "v1")
            manages = Fleet(catalogue, session)
            leading = Controller(catalogue, manages, Path(state) / "memory.json", time.time())
            runner = web.AppRunner(application(lambda: leading), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
            tasks = [asyncio.create_task(work) for work in (leading.run(), leading.watch())]
            wanted = sum(pool.min_replicas for pool in catalogue.pools.values())
            async with asyncio.timeout(PATIENCE_S):
                while (await _figures(session, world))["replicas"] < wanted:
                    await asyncio.sleep(1)
            await asyncio.sleep(SETTLE_S)
            await _figures(session, world)
            began_s, cpu_s = time.monotonic(), time.process_time()
            ticks: list[dict[str, float]] = []
            rss, last = 0, leading.state()["last_tick"]
            while time.monotonic() - began_s < seconds:
                await asyncio.sleep(0.1)
                tick = leading._last_tick  # the whole state would be made ten times a second
                if tick is not last:
                    ticks.append(tick)
                    last = tick
                    rss = max(rss, psutil.Process().memory_info().rss)
            cpu_s = time.process_time() - cpu_s
            found = await _figures(session, world)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await manages.stop()
            await runner.cleanup()
    durations = np.array([tick["duration_s"] for tick in ticks])
    calls = np.array([tick["calls"] for tick in ticks])
    return Measured(
        clusters=clusters,
        pools=pools,
        replicas=found["replicas"],
        ticks=len(ticks),
        tick_p50_s=float(np.quantile(durations, 0.5)),
        tick_p99_s=float(np.quantile(durations, 0.99)),
        tick_max_s=float(durations.max()),
        cpu_s_per_tick=cpu_s / len(ticks),
        rss_mb=rss / 1e6,
        calls_per_tick=float(calls.mean()),
        calls_max=int(calls.max()),
        asked_per_tick={kind: n / len(ticks) for kind, n in sorted(found["asked"].items())},
        exchange_p99_s=float(np.quantile(found["exchanges_s"] or [np.nan], 0.99)),
        bursting=(min(found["bursting"], default=0), max(found["bursting"], default=0)),
    )


async def _figures(session: aiohttp.ClientSession, world: str) -> dict[str, Any]:
    async with session.get(f"{world}/figures") as answer:
        return dict(await answer.json())


def shown(measured: list[Measured]) -> Table:
    table = Table("clusters", "pools", "replicas", "tick p50", "p99", "max", "CPU a tick", "RSS")
    for header in ("calls a tick", "most", "of which", "exchange p99", "bursts at once"):
        table.add_column(header)
    for m in measured:
        table.add_row(
            *(str(m.clusters), str(m.pools), str(m.replicas)),
            *(f"{s * 1e3:.0f} ms" for s in (m.tick_p50_s, m.tick_p99_s, m.tick_max_s)),
            f"{m.cpu_s_per_tick * 1e3:.0f} ms",
            f"{m.rss_mb:.0f} MB",
            f"{m.calls_per_tick:.1f}",
            str(m.calls_max),
            ", ".join(f"{n:.1f} {kind}" for kind, n in m.asked_per_tick.items()),
            f"{m.exchange_p99_s * 1e3:.0f} ms",
            f"{m.bursting[0]}-{m.bursting[1]}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of measuring, for each fleet")
    parser.add_argument("--shape", type=int, nargs=2, action="append", metavar="N")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        url, clusters, pools, seconds = options.child
        found = asyncio.run(control(url, int(clusters), int(pools), float(seconds)))
        print(json.dumps(asdict(found)), flush=True)
        return
    shapes = options.shape or SHAPES
    measured = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("fleets", total=len(shapes))
        for clusters, pools in shapes:
            progress.update(task, description=f"{clusters} clusters, {pools} pools")
            measured.append(measure(clusters, pools, options.seconds))
            progress.advance(task)
    if options.json:
        print(json.dumps([asdict(m) for m in measured], indent=2))
    else:
        Console().print(shown(measured))


if __name__ == "__main__":
    main()
