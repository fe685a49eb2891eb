"""`up`, `down`, `status`, and the controller's own process."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.config.load import ConfigurationError, load, state_directory
from orchestrator.stack import processes
from orchestrator.stack.ray_head import StackError
from orchestrator.stack.secrets import secret


@app.command()
def up(
    config: Config = Path("clusters/local"),
    detach: Annotated[
        bool, typer.Option(help="Return when it serves; stop it with 'down'.")
    ] = False,
) -> None:
    """Run the local stack: two Ray clusters, the gateway and the controller."""
    from orchestrator.cli.checks import check
    from orchestrator.stack.up import up as start

    state = state_directory()
    interrupt_on_polite_kill()
    serving = False
    try:
        with steps() as step:
            loaded = start(config, state, check, step)
        serving = True
        out.print(f"[green]Serving[/green] at {loaded.configuration.gateway.url}/v1")
        for workload in loaded.configuration.workloads:
            out.print(f"  key of {workload.name}: {state / 'keys' / workload.name}", soft_wrap=True)
        if detach:
            return
        out.print("Ctrl-C stops it.")
        while True:
            time.sleep(3600)
    except ConfigurationError as error:
        raise configuration_error(error, False) from None
    except StackError as error:
        raise refuse(error) from None
    except KeyboardInterrupt:
        out.print("Stopping")
    finally:
        if not (serving and detach):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            processes.stop_all(state)


@app.command()
def down() -> None:
    """Stop the local stack; no process is left."""
    count = processes.stop_all(state_directory())
    out.print(f"stopped {count} processes" if count else "nothing was running")


@app.command()
def status(config: Config = Path("clusters/local"), as_json: Json = False) -> None:
    """What runs where, and why."""
    try:
        state = asyncio.run(_state(config))
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except aiohttp.ClientResponseError as error:
        hint = "; does ORCHESTRATOR_TOKEN belong to another stack?" if error.status == 401 else ""
        raise refuse(f"the controller answered {error.status}{hint}") from None
    except (aiohttp.ClientError, TimeoutError):
        raise refuse("no controller answers; start the stack with 'orchestrator up'") from None
    if as_json:
        print_json(state)
        return
    _show(state)


@app.command(hidden=True)
def controller(
    fresh: Annotated[bool, typer.Option(help="Its clusters were started from nothing.")] = False,
) -> None:
    """Run the controller of the policy in force, in the foreground."""
    from orchestrator.controller.main import run
    from orchestrator.controller.memory import MemoryNotWhole

    try:
        run(state_directory(), fresh)
    except ConfigurationError as error:
        raise configuration_error(error, False) from None
    except MemoryNotWhole as error:
        raise refuse(error) from None


def interrupt_on_polite_kill() -> None:
    """SIGTERM cleans up as Ctrl-C does, and Ctrl-C also where a shell that started this in the
    background had it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


class steps:
    """A spinner per step, with the time that it took; a line per step where nobody watches."""

    _progress: Progress | None = None
    _task: TaskID | None = None

    def __enter__(self) -> Any:
        if not out.is_terminal:
            return lambda name: out.print(f"{time.strftime('%X')} {name}", highlight=False)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=out,
        )
        self._progress.start()
        return self._begin

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._progress is not None:
            if error is None:
                self._end(self._progress)
            self._progress.stop()

    def _begin(self, name: str) -> None:
        assert self._progress is not None
        self._end(self._progress)
        self._task = self._progress.add_task(name, total=1)

    def _end(self, progress: Progress) -> None:
        if self._task is not None:
            progress.update(self._task, completed=1)


async def _state(config: Path) -> dict[str, Any]:
    import os

    from orchestrator.stack.up import controller_state

    token = os.environ.get("ORCHESTRATOR_TOKEN") or secret(state_directory(), "controller-token")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        return await controller_state(session, load(config), token)


def _show(state: dict[str, Any]) -> None:
    table = Table(
        "pool",
        "zone",
        "variant",
        "ready",
        "target",
        "running",
        "waiting",
        "queued",
        "TTFT p95",
        "USD/h",
    )
    for name, pool in state["pools"].items():
        quote = pool["quote"]
        price = f"{quote['usd_per_gpu_hour']:.2f}" if quote else "?"
        price += " stale" if quote and quote["stale"] else ""
        for variant, v in pool["variants"].items():
            p95 = "" if v["ttft_p95_s"] is None else f"{v['ttft_p95_s']:.2f} s"
            table.add_row(
                name,
                pool["zone"],
                variant,
                str(v["ready"]),
                str(v["target"]),
                str(v["running"]),
                str(v["waiting"]),
                str(v["queued"]),
                p95,
                price,
            )
    out.print(table)
    for name, burst in state["bursts"].items():
        where = f" to {burst['pool']}" if burst["pool"] else ""
        out.print(f"{name}: [bold]{burst['state']}[/bold]{where}: {burst['reason']}")
    cost = state["cost_usd"]
    out.print(f"cost so far: {cost['total']:.4f} USD, of it {cost['cloud']:.4f} in burst pools")
