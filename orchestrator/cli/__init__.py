"""The command line: thin typer commands. Imports anything."""

from orchestrator.cli.app import app


def main() -> None:
    app()
