"""`apply`: puts a configuration in force."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.checks import check
from orchestrator.cli.policy import live_state
from orchestrator.config.diff import differences, taken_later
from orchestrator.config.load import ConfigurationError, Loaded, state_directory
from orchestrator.config.store import PolicyStore

TAKEN_WITHIN_S = 10


@app.command()
def apply(
    directory: Annotated[Path | None, typer.Argument(help="A configuration directory.")] = None,
    rollback: Annotated[bool, typer.Option(help="Back to the previous version.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is taken.")] = True,
    as_json: Json = False,
) -> None:
    """Validate, run the probes, and put the configuration in force.

    Waits until a running controller has taken it, for 10 s at most, and says who still holds the
    old version; exit code 1 when one does. A directory that is not valid changes nothing.
    """
    if (directory is None) != rollback:
        raise refuse("give either a configuration directory or --rollback", 2)
    store = PolicyStore(state_directory())
    try:
        before = store.current()
        if directory is not None:
            after = store.apply(directory, check)
        else:
            previous = store.previous()
            if previous is None:
                raise refuse("there is no previous version", 2)
            after = store.restore(previous.version, check)
        loaded = store.load(after.version)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except OSError as error:
        raise refuse(f"{error.filename}: {error.strerror}; nothing was applied") from None
    if not as_json:
        old = before.version if before else "none"
        out.print(
            f"version {after.version} is in force already"
            if after.already
            else f"version {old} → [green]{after.version}[/green]"
        )
    old_rules = store.load(before.version) if before and not after.already else None
    later = list(taken_later(differences(old_rules, loaded))) if old_rules else []
    held = _wait(loaded) if wait else {}
    late = sorted(name for name, version in (held or {}).items() if version != after.version)
    if as_json:
        print_json(
            {
                "before": before.version if before else None,
                "after": after.version,
                "source": str(after.source),
                "already": after.already,
                "held": held if wait else None,
                "late": late,
                "taken_later": later,
            }
        )
    elif not wait:
        out.print("it is taken by whoever runs, and by whoever starts")
    elif held is None:
        out.print("no controller answers: it is taken when the stack starts")
    elif late:
        names = ", ".join(f"{name} ({held[name]})" for name in late)
        out.print(f"after {TAKEN_WITHIN_S} s the old version is still held by: {names}")
    else:
        out.print(f"taken by: {', '.join(held)}")
    if not as_json:
        for sentence in later:
            out.print(sentence, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if late:
        raise typer.Exit(1)


def _wait(loaded: Loaded) -> dict[str, str] | None:
    """The version that the controller and each gateway hold; None where no controller answers."""
    deadline_s = time.monotonic() + TAKEN_WITHIN_S
    while True:
        state = live_state(loaded)
        held = _held(state) if state is not None else None
        taken = held is None or set(held.values()) == {loaded.version}
        if taken or time.monotonic() >= deadline_s:
            return held
        time.sleep(0.3)


def _held(state: dict[str, Any]) -> dict[str, str]:
    gateways = state.get("gateways", {})
    return {
        "controller": str(state.get("config_version")),
        **{
            f"gateway {name}": str(gateway["config_version"])
            for name, gateway in gateways.items()
            if "config_version" in gateway
        },
    }
