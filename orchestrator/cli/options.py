"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.config.load import ConfigurationError, state_directory
from orchestrator.config.store import PolicyStore

LOCAL = Path("clusters/local")

Config = Annotated[
    Path, typer.Option("--config", help="The configuration directory.", show_default=True)
]
AppliedConfig = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration directory. Default: the one in force."),
]


def applied_or_local(config: Path | None) -> Path:
    """The directory that was given, else the one that the version in force came from."""
    if config is not None:
        return config
    try:
        applied = PolicyStore(state_directory()).current()
    except ConfigurationError:
        return LOCAL
    return applied.source if applied else LOCAL
