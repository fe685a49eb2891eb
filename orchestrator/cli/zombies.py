"""`zombies`: what is paid for and does nothing."""

import time
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, err, out, print_json, refuse
from orchestrator.cli.options import LOCAL, Config
from orchestrator.cli.policy import live_zombies, tell
from orchestrator.cli.pools import NOBODY_ANSWERS, loaded


@app.command()
def zombies(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ZOMBIE]...", help="As listed. Default: all.", show_default=False),
    ] = None,
    reclaim: Annotated[
        bool, typer.Option(help="Give back what may be given back, after another look.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="With --reclaim: only say what would be given back.")
    ] = True,
    config: Config = LOCAL,
    as_json: Json = False,
) -> None:
    """What is paid for and does nothing: since when, whose it is, its cost so far, what to do.

    Never a declared standby, nor what is not known. Idle replicas and orphans can be given back
    here; for the rest the mend is shown.
    """
    rules = loaded(config, as_json)
    wanted = subjects or []
    if reclaim:
        try:
            answer = tell(rules, "zombies/reclaim", {"subjects": wanted, "dry_run": dry_run})
        except LookupError as unknown:
            raise _no_zombie(str(unknown)) from None
        except ConnectionError:
            raise refuse(NOBODY_ANSWERS) from None
    else:
        listed = live_zombies(rules)
        if listed is None:
            raise refuse(NOBODY_ANSWERS)
        answer = listed
        strangers = set(wanted) - {z["subject"] for z in answer["zombies"]}
        if strangers:
            raise _no_zombie(min(strangers))
        if wanted:
            answer["zombies"] = [z for z in answer["zombies"] if z["subject"] in wanted]
    if as_json:
        print_json(answer)
    elif reclaim:
        _show_reclaimed(answer["zombies"], dry_run)
    elif "swept_at_s" in answer and answer["swept_at_s"] is None:
        err.print("the controller has not looked yet")
    else:
        _show(answer["zombies"])
    # By name: whoever asked for one wants to know that it is not given back.
    if reclaim and wanted and any(z["obstacle"] for z in answer["zombies"]):
        raise typer.Exit(1)


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        out.print("no zombies")
        return
    table = Table("kind", "zombie", "owner", "since", "USD so far")
    for zombie in found:
        table.add_row(
            zombie["kind"],
            zombie["subject"],
            zombie["owner"] or ", ".join(zombie["workloads"]),
            time.strftime("%F %X", time.localtime(zombie["since_s"])),
            "?" if zombie["cost_usd"] is None else f"{zombie['cost_usd']:.2f}",
        )
    out.print(table)
    for zombie in found:
        _line(f"{zombie['subject']}: {zombie['evidence']}")
        _line(f"  {zombie['mend']}")
        if zombie["doubt"]:
            _line(f"  but {zombie['doubt']}")


def _show_reclaimed(found: list[dict[str, Any]], dry_run: bool) -> None:
    done = "would be given back" if dry_run else "is given back"
    for zombie in found:
        obstacle = zombie["obstacle"]
        _line(f"{zombie['subject']}: {f'not given back: {obstacle}' if obstacle else done}")
    if not found:
        out.print("no zombies")
    elif dry_run:
        err.print("nothing is done without --no-dry-run")


def _line(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _no_zombie(subject: str) -> typer.Exit:
    return refuse(f"no zombie '{subject}'; see 'orchestrator zombies'", 2)
