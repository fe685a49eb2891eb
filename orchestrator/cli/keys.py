"""`keys`: who may call, for what, and how much."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.options import AppliedConfig, applied_or_local
from orchestrator.config import keys as store
from orchestrator.config.load import ConfigurationError, Loaded, load
from orchestrator.config.spec import Endpoint, Key, Limits, Scope

keys = typer.Typer(no_args_is_help=True, help="API keys: create, rotate, list, revoke.")
app.add_typer(keys, name="keys")

ENDPOINTS = get_args(Endpoint)


@keys.command()
def create(
    workload: Annotated[str, typer.Option(help="The workload that the key speaks for.")],
    config: AppliedConfig = None,
    models: Annotated[
        str | None, typer.Option(help="Models it may use, such as a,b. Default: the workload's.")
    ] = None,
    endpoints: Annotated[
        str | None,
        typer.Option(help=f"Endpoints it may use, among {','.join(ENDPOINTS)}. Default: all."),
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Requests in any 60 seconds.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, max=100_000_000, help="Tokens in any 60 seconds.")
    ] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days it is valid.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it once; only its hash is kept."""
    loaded = _loaded(config, as_json)
    known = {w.name: w for w in loaded.configuration.workloads}
    if workload not in known:
        raise refuse(f"no workload '{workload}'; there are: {', '.join(known)}", 2)
    scope = Scope.model_validate(
        {
            "models": _chosen("model", models, known[workload].models),
            "endpoints": _chosen("endpoint", endpoints, ENDPOINTS),
        }
    )
    limits = Limits(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    key, plaintext = store.create(loaded.directory, workload, expires_at, scope, limits)
    _print_once(key, plaintext, as_json)


@keys.command()
def rotate(
    key_id: str,
    config: AppliedConfig = None,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=24 * 365, help="Hours for which the old key goes on.")
    ] = 24,
    as_json: Json = False,
) -> None:
    """Make a key that may do what this one may, and print it once; the old one ends."""
    directory = _loaded(config, as_json).directory
    try:
        key, plaintext = store.rotate(directory, key_id, timedelta(hours=overlap_hours))
    except KeyError:
        raise _no_such_key(key_id, directory) from None
    except ValueError as error:
        raise refuse(error) from None
    _print_once(key, plaintext, as_json)


@keys.command(name="list")
def list_keys(config: AppliedConfig = None, as_json: Json = False) -> None:
    """Every key, without its secret."""
    found = _loaded(config, as_json).configuration.keys
    if as_json:
        print_json([_shown(key) for key in found])
        return
    table = Table("id", "workload", "may use", "a minute", "created", "ends")
    table.columns[0].no_wrap = True
    now = datetime.now(UTC)
    for key in found:
        end = f"{key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never"
        used: list[str] = [*(key.scope.models or ["all models"])]
        used += key.scope.endpoints or ["all endpoints"]
        requests, tokens = key.limits.requests_per_minute, key.limits.tokens_per_minute
        table.add_row(
            key.id,
            key.workload,
            ", ".join(used),
            f"{requests or 'any'} requests, {tokens or 'any'} tokens",
            f"{key.created_at:%Y-%m-%d}",
            f"{end}, over" if store.is_over(key, now) else end,
        )
    out.print(table)


@keys.command()
def revoke(key_id: str, config: AppliedConfig = None) -> None:
    """Remove a key; gateways that read this directory refuse it from their next request on."""
    directory = _loaded(config, False).directory
    try:
        store.revoke(directory, key_id)
    except KeyError:
        raise _no_such_key(key_id, directory) from None


def _loaded(config: Path | None, as_json: bool) -> Loaded:
    try:
        return load(applied_or_local(config))
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None


def _chosen(what: str, given: str | None, known: list[str] | tuple[str, ...]) -> list[str] | None:
    """The names of a list that is written with commas."""
    if given is None:
        return None
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            raise refuse(f"no {what} '{name}' for this key; there are: {', '.join(known)}", 2)
    return names


def _print_once(key: Key, plaintext: str, as_json: bool) -> None:
    if as_json:
        print_json({**_shown(key), "key": plaintext})
    else:
        typer.echo(plaintext)


def _shown(key: Key) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"sha256"})


def _no_such_key(key_id: str, directory: Path) -> typer.Exit:
    return refuse(f"no key '{key_id}' in {directory}; see 'keys list'")
