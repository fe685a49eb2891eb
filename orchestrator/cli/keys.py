"""`keys`: who may call."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.options import AppliedConfig, applied_or_local
from orchestrator.config import keys as store
from orchestrator.config.load import ConfigurationError, load

keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
app.add_typer(keys, name="keys")


@keys.command()
def create(
    workload: Annotated[str, typer.Option(help="The workload that the key speaks for.")],
    config: AppliedConfig = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days it is valid.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it once; only its hash is kept."""
    directory = applied_or_local(config)
    try:
        loaded = load(directory)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    known = [w.name for w in loaded.configuration.workloads]
    if workload not in known:
        raise refuse(f"no workload '{workload}'; there are: {', '.join(known)}", 2)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    key, plaintext = store.create(directory, workload, expires_at)
    if as_json:
        print_json({"id": key.id, "workload": workload, "key": plaintext})
        return
    typer.echo(plaintext)


@keys.command(name="list")
def list_keys(config: AppliedConfig = None, as_json: Json = False) -> None:
    """Every key, without its secret."""
    try:
        found = load(applied_or_local(config)).configuration.keys
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    if as_json:
        print_json([k.model_dump(mode="json", exclude={"sha256"}) for k in found])
        return
    table = Table("id", "workload", "created", "expires")
    for key in found:
        expires = f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "never"
        table.add_row(key.id, key.workload, f"{key.created_at:%Y-%m-%d}", expires)
    out.print(table)


@keys.command()
def revoke(key_id: str, config: AppliedConfig = None) -> None:
    """Remove a key; gateways that read this directory refuse it within a second or so."""
    directory = applied_or_local(config)
    try:
        load(directory)
        store.revoke(directory, key_id)
    except ConfigurationError as error:
        raise configuration_error(error, False) from None
    except KeyError:
        raise refuse(f"no key '{key_id}' in {directory}; see 'keys list'") from None
