"""`burst`: which workloads burst and why, and somebody's word on it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, out, print_json, refuse
from orchestrator.cli.durations import For, until
from orchestrator.cli.options import LOCAL, Config
from orchestrator.cli.policy import live_state, tell
from orchestrator.cli.pools import NOBODY_ANSWERS, loaded

burst = typer.Typer(no_args_is_help=True, help="Bursts: status, hold, force, release.")
app.add_typer(burst, name="burst")


@burst.command()
def status(config: Config = LOCAL, as_json: Json = False) -> None:
    """Which workloads burst, where to, and why."""
    state = live_state(loaded(config, as_json))
    if state is None:
        raise refuse(NOBODY_ANSWERS)
    if as_json:
        print_json(state["bursts"])
        return
    table = Table("workload", "state", "pool", "reason", "by hand")
    for name, found in sorted(state["bursts"].items()):
        table.add_row(
            name, found["state"], found["pool"] or "", found["reason"], _word(found["override"])
        )
    out.print(table)
    if state["mode"] == "advisory":
        out.print("advisory mode: this is only said; nothing is scaled, and nobody bursts")


@burst.command()
def hold(workload: str, for_s: For = None, config: Config = LOCAL, as_json: Json = False) -> None:
    """Leave a workload as it is: no burst starts, and calm ends none.

    A price above the ceiling or a spent budget still ends one.
    """
    _tell(config, workload, {"override": "hold", "for_s": for_s}, as_json)


@burst.command()
def force(
    workload: str,
    pool: Annotated[
        str | None, typer.Option(help="One of its burst pools. Default: the best.")
    ] = None,
    for_s: For = None,
    config: Config = LOCAL,
    as_json: Json = False,
) -> None:
    """Burst whatever the triggers say.

    It overrides triggers, never what the rules forbid: zones and data classes, price ceilings,
    budgets, fresh quotes and the limits of pools hold as always, and 'burst status' says which one
    stands in the way.
    """
    _tell(config, workload, {"override": "force", "pool": pool, "for_s": for_s}, as_json)


@burst.command()
def release(workload: str, config: Config = LOCAL, as_json: Json = False) -> None:
    """End a burst, and any word on it: it drains, then the triggers have their say again."""
    _tell(config, workload, {"override": "release"}, as_json)


def _tell(config: Path, workload: str, body: dict[str, Any], as_json: bool) -> None:
    try:
        answer = tell(loaded(config, as_json), f"bursts/{workload}", body)
    except LookupError:
        raise refuse(f"no workload '{workload}'; see 'burst status'", 2) from None
    except ValueError as error:
        raise refuse(error, 2) from None
    except ConnectionError:
        raise refuse(NOBODY_ANSWERS) from None
    if as_json:
        print_json(answer)
        return
    end = "" if body["override"] == "release" else f"; 'burst release {workload}' ends that"
    out.print(f"{workload}: {_word(answer)}, from the next tick on{end}")


def _word(override: dict[str, Any] | None) -> str:
    if override is None:
        return ""
    where = f" to {override['pool']}" if override["pool"] else ""
    return f"{override['kind']}{where}{until(override['until_s'])}"
