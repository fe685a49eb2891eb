"""`pools`: what they run, and whether they take requests."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.durations import For, duration, until
from orchestrator.cli.options import Config
from orchestrator.cli.policy import hold_pool, live_state
from orchestrator.config.load import ConfigurationError, Loaded, load

pools = typer.Typer(no_args_is_help=True, help="Pools: list, drain, resume.")
app.add_typer(pools, name="pools")

LOCAL = Path("clusters/local")
NOBODY_ANSWERS = "no controller answers; start the stack with 'orchestrator up'"


@pools.command(name="list")
def list_pools(config: Config = LOCAL, as_json: Json = False) -> None:
    """Every pool, with its replicas and whether it takes requests."""
    state = live_state(loaded(config, as_json))
    if state is None:
        raise refuse(NOBODY_ANSWERS)
    if as_json:
        print_json(state["pools"])
        return
    table = Table("pool", "zone", "ready", "target", "running", "waiting", "hold")
    for name, pool in state["pools"].items():
        variants = pool["variants"].values()
        table.add_row(
            name,
            pool["zone"],
            str(pool["replicas_ready"]),
            str(pool["replicas_target"]),
            str(sum(v["running"] for v in variants)),
            str(sum(v["waiting"] for v in variants)),
            f"{pool['hold'] or ''}{until(pool['hold_until_s'])}",
        )
    out.print(table)


@pools.command()
def drain(
    pool: str,
    leaving: Annotated[
        bool,
        typer.Option(
            help="Its replicas will be lost, as after a spot notice: streams go on elsewhere "
            "where they can."
        ),
    ] = False,
    for_s: For = None,
    config: Config = LOCAL,
) -> None:
    """Send a pool no more requests; what runs there ends there."""
    _hold(config, pool, "leaving" if leaving else "drained", for_s)
    limit = f"for {duration(for_s)}, or " if for_s is not None else ""
    out.print(f"{pool} gets no more requests, {limit}until 'pools resume {pool}'")


@pools.command()
def resume(pool: str, config: Config = LOCAL) -> None:
    """Send a pool requests again."""
    _hold(config, pool, None)
    out.print(f"{pool} gets requests again")


def _hold(config: Path, pool: str, hold: str | None, for_s: float | None = None) -> None:
    try:
        hold_pool(loaded(config, False), pool, hold, for_s)
    except LookupError:
        raise refuse(f"no pool '{pool}'; see 'pools list'", 2) from None
    except ConnectionError:
        raise refuse(NOBODY_ANSWERS) from None


def loaded(config: Path, as_json: bool) -> Loaded:
    """Ends the command where the configuration is not whole."""
    try:
        return load(config)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
