"""A replay as it runs: the live table, and what is shown and written when it ends."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from orchestrator.cli.app import err, out
from orchestrator.cli.shares import read_shares
from orchestrator.config.load import Loaded, state_directory
from orchestrator.replay import report as reports
from orchestrator.replay.client import Caller, Replay
from orchestrator.replay.observer import Observer
from orchestrator.replay.plot import timeline
from orchestrator.stack.secrets import secret
from orchestrator.traces.arrivals import Arrival

RECENT_S = 20


@dataclass(frozen=True)
class Result:
    replay: Replay
    observer: Observer

    def write(self, directory: Path, about: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
        """The report's files and the timeline; returns the report."""
        outcomes, samples = self.replay.outcomes, self.observer.samples
        report = reports.write(directory, outcomes, samples, about)
        title = f"{about['trace']}, {len(outcomes)} requests"
        timeline(directory / "timeline.png", title, outcomes, samples, loaded.configuration)
        return report


async def drive(
    loaded: Loaded,
    arrivals: list[Arrival],
    callers: list[Caller],
    model: str,
    run_id: str,
    seed: int,
    quiet: bool = False,
    until: Callable[[dict[str, Any]], bool] | None = None,
    until_timeout_s: float = 0,
) -> Result:
    """Replays with a live table; then watches on until the controller's state is as wanted, or the
    time for that has passed. Raises openai.APIError when the endpoint does not serve."""
    run = Replay(f"{base_url(loaded)}/v1", model, callers, arrivals, run_id, seed)
    token = os.environ.get("ORCHESTRATOR_TOKEN") or secret(state_directory(), "controller-token")
    observer = Observer(loaded.configuration.controller.url, token, lambda: run.now_s)

    def started() -> None:
        watching.append(asyncio.create_task(observer.run()))

    watching: list[asyncio.Task[None]] = []
    with Live(console=err, auto_refresh=False, transient=True) as live:

        async def redraw() -> None:
            while not quiet:
                live.update(_table(run, observer), refresh=True)
                await asyncio.sleep(1)

        watching.append(asyncio.create_task(redraw()))
        try:
            await run.run(started)
            deadline_s = time.monotonic() + until_timeout_s
            while until is not None and time.monotonic() < deadline_s:
                if observer.latest is not None and until(observer.latest):
                    break
                await asyncio.sleep(1)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    return Result(run, observer)


def base_url(loaded: Loaded) -> str:
    return loaded.configuration.gateway.url.rstrip("/")


def clip(arrivals: list[Arrival], prompt_tokens: int, output_tokens: int) -> list[Arrival]:
    return [
        Arrival(
            a.arrival_s, min(a.prompt_tokens, prompt_tokens), min(a.output_tokens, output_tokens)
        )
        for a in arrivals
    ]


def read_callers(mix: str, loaded: Loaded) -> list[Caller]:
    """Who takes part, with their keys. Raises ValueError with the mend."""
    folder = state_directory() / "keys"
    workloads = loaded.configuration.workloads
    weights = read_shares("--mix", mix) if mix else {w.name: 1.0 for w in workloads}
    callers = []
    for name, weight in weights.items():
        file = folder / name
        if not file.exists():
            raise ValueError(f"no key of workload '{name}' at {file}; 'orchestrator up' makes one")
        callers.append(Caller(name, file.read_text().strip(), weight))
    return callers


def show(report: dict[str, Any]) -> None:
    """The report's tables."""
    for kind in ("workload", "pool"):
        table = Table(kind, "requests", "not ok", "zones", "TTFT p50", "p95", "p99", "ITL p50")
        for name, row in report[f"by_{kind}"].items():
            table.add_row(
                name,
                str(row["requests"]),
                str(row["not_ok"]),
                ", ".join(row["zones"]),
                *(_seconds(row[f"ttft_p{q}_s"]) for q in (50, 95, 99)),
                _seconds(row["itl_p50_s"]),
            )
        out.print(table)
    for change in report["bursts"]:
        out.print(
            f"{change['at_s']:5.0f} s  {change['workload']} is [bold]{change['state']}[/bold]: "
            f"{change['reason']}"
        )
    if report["cost_usd"]:
        cost = report["cost_usd"]
        out.print(f"cost {cost['total']:.4f} USD, of it {cost['cloud']:.4f} in burst pools")


def _table(run: Replay, observer: Observer) -> Group:
    """What is going on now."""
    now_s, outcomes = run.now_s, run.outcomes
    recent = [o for o in outcomes if (o.first_token_s or 0) > now_s - RECENT_S]
    rate = sum(o.arrival_s > now_s - RECENT_S for o in outcomes) / min(RECENT_S, max(now_s, 1))
    open_ = sum(o.status == "open" for o in outcomes)
    failed = sum(o.status not in ("open", "ok") for o in outcomes)
    table = Table("", "ready", "target", "share", "TTFT p50", "p95", "USD/h")
    pools = observer.latest["pools"] if observer.latest else {}
    for pool in sorted({*pools, *(o.pool for o in recent if o.pool)}):
        mine = [o.ttft_s for o in recent if o.pool == pool]
        known = pools.get(pool)
        quote = known and known["quote"]
        table.add_row(
            pool,
            str(known["replicas_ready"]) if known else "?",
            str(known["replicas_target"]) if known else "?",
            f"{len(mine) / len(recent):.0%}" if recent else "",
            _seconds(reports.quantile(mine, 0.5)),
            _seconds(reports.quantile(mine, 0.95)),
            f"{quote['usd_per_gpu_hour']:.2f}" if quote else "?",
        )
    lines: list[Any] = [
        ProgressBar(total=max(1, run.total), completed=len(outcomes)),
        f"{now_s:4.0f} s  {len(outcomes)}/{run.total} sent  {rate:.1f} requests/s  {open_} open  "
        f"{failed} failed",
        table,
    ]
    if observer.latest:
        for name, burst in observer.latest["bursts"].items():
            lines.append(f"{name}: {burst['state']}: {burst['reason']}")
        lines.append(f"cost so far {observer.latest['cost_usd']['total']:.4f} USD")
    return Group(*lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
