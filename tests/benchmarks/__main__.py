"""`make bench`: what the gateway costs, each figure beside its baseline in one run.

1. Real vLLM, one-token completions, 16 clients: Ray Serve LLM's stock ingress, the direct-streaming
   front alone, our gateway with keys, policy and accounting on.
2. An engine that takes no time, one client and 32: direct, our gateway under bare uvicorn, our
   gateway in Ray Serve, the same as an ordinary Serve ingress behind HAProxy.
3. The gateway replica's resident memory over 100,000 requests.
"""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from orchestrator.cli.checks import check
from orchestrator.cli.stack import interrupt_on_polite_kill
from orchestrator.config.load import load, state_directory
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.server import listen, server
from orchestrator.stack import processes
from orchestrator.stack.up import environment, up
from tests.benchmarks import ingress
from tests.benchmarks.load import Target, measure, side_by_side

CONFIG = Path(__file__).parent / "clusters"
INSTANT, BARE = "http://127.0.0.1:9100", "http://127.0.0.1:9101"
FRONT, STOCK = "http://127.0.0.1:8001", "http://127.0.0.1:8002"
out = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=state_directory() / "bench")
    parser.add_argument("--memory-requests", type=int, default=100_000)
    parser.add_argument("--serve-bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    state = state_directory()
    if options.serve_bare:
        server(Gateway(state)).run(sockets=[listen(BARE)])
        return
    interrupt_on_polite_kill()
    try:
        # A copy, since `up` writes keys beside the configuration.
        config = shutil.copytree(CONFIG, _config(state), dirs_exist_ok=True)
        up(config, state, check, lambda step: out.print(f"{time.strftime('%X')} {step}"))
        with _beside(state):
            asyncio.run(ingress.deploy(load(config), state))
            _wait(f"{FRONT}/healthz")
            report = asyncio.run(_bench((state / "keys" / "bench").read_text().strip(), options))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.stop_all(state)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    out.print(f"figures: {options.out / 'report.json'}")


def _config(state: Path) -> Path:
    return state / "bench" / "clusters"


@contextmanager
def _beside(state: Path) -> Iterator[None]:
    """The engine that takes no time, and the gateway under bare uvicorn."""
    commands = [
        [
            *("orchestrator.cli", "simulate-engine", "--port", "9100", "--model", "instant"),
            *("--ttft-s", "0", "--itl-s", "0", "--max-num-seqs", "1000"),
        ],
        ["tests.benchmarks", "--serve-bare"],
    ]
    env = environment(state)
    with (state / "logs" / "bench.log").open("w") as log:
        for command in commands:
            subprocess.Popen([sys.executable, "-m", *command], env=env, stdout=log, stderr=log)
    for url in (f"{INSTANT}/health", f"{BARE}/healthz"):
        _wait(url)
    yield


def _wait(url: str) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer; see logs/bench.log")


async def _bench(api_key: str, options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {"cores": os.cpu_count()}
    path = "/pools/{}/tiny-bf16"
    stock = Target("stock ingress", STOCK + path.format("stock-cpu"), "tiny")
    front = Target("direct-streaming", FRONT + path.format("ours-cpu"), "tiny")
    ours = Target("gateway", "http://127.0.0.1:8000", "tiny", api_key)
    report["vllm_16_clients"] = await _compare(
        "real vLLM, 16 clients", [stock, front, ours], 16, 600, rounds=3
    )
    direct = Target("direct", INSTANT, "instant")
    bare = Target("gateway, bare uvicorn", BARE, "instant", api_key)
    served = Target("gateway, Ray Serve", ours.base_url, "instant", api_key)
    behind = Target("gateway, Serve ingress", FRONT, "instant", api_key)
    for clients, requests in ((1, 1000), (32, 4000)):
        report[f"instant_{clients}_clients"] = await _compare(
            f"instant engine, {clients} clients",
            [direct, bare, served, behind],
            clients,
            requests,
            5,
        )
    report["gateway_rss_mb"] = await _memory(served, options.memory_requests)
    return report


async def _compare(
    title: str, targets: list[Target], clients: int, requests: int, rounds: int
) -> dict[str, Any]:
    figures = await side_by_side(targets, clients, requests, rounds)
    first = figures[targets[0].name]
    table = Table("", "requests/s", "p50", "p95", "x", "p50 added", title=title)
    for name, f in figures.items():
        table.add_row(
            name,
            f"{f.requests_per_s:.0f}",
            *(f"{s * 1000:.2f} ms" for s in (f.p50_s, f.p95_s)),
            f"{f.requests_per_s / first.requests_per_s:.2f}",
            f"{(f.p50_s - first.p50_s) * 1000:+.2f} ms",
        )
    out.print(table)
    return {name: asdict(f) for name, f in figures.items()}


async def _memory(target: Target, requests: int) -> dict[str, float]:
    """Resident MB of the gateway replica, by requests served."""
    (replica,) = (
        p
        for p in processes.running(state_directory())
        if "GatewayDeployment" in " ".join(p.cmdline())
    )
    found = {"0": _mb(replica)}
    steps = 10
    for number in track(range(1, steps + 1), "gateway memory", console=out, transient=True):
        await measure(target, 32, requests // steps)
        found[str(requests // steps * number)] = _mb(replica)
    table = Table("requests", "gateway RSS", title="memory")
    for count, mb in found.items():
        table.add_row(count, f"{mb:.0f} MB")
    out.print(table)
    return found


def _mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


if __name__ == "__main__":
    main()
