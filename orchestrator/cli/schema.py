"""`schema`: the configuration language, for people and editors."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(help="Write README.md and schema.json into this folder.")
    ] = None,
) -> None:
    """Print the JSON Schema of a configuration file, or write it with the reference."""
    from orchestrator.config.document import file_schema, markdown

    if out is None:
        typer.echo(file_schema(), nl=False)
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text(markdown())
    (out / "schema.json").write_text(file_schema())
