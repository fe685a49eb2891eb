"""The commands. Exit code 0: fine; 1: the answer is no; 2: wrong use."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from orchestrator.config.load import ConfigurationError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One OpenAI-compatible endpoint over the GPUs you own and the GPUs you rent.",
)
out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def refuse(error: Exception | str, code: int = 1) -> typer.Exit:
    """Prints the error and gives the exception to raise."""
    err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


def configuration_error(error: ConfigurationError, as_json: bool) -> typer.Exit:
    if as_json:
        print_json(
            {
                "valid": False,
                "problems": [
                    {"path": str(p.path), "line": p.line, "message": p.message}
                    for p in error.problems
                ],
            }
        )
        return typer.Exit(1)
    return refuse(error)


from orchestrator.cli import (  # noqa: E402
    apply,  # noqa: F401
    audit,  # noqa: F401
    burst,  # noqa: F401
    demo,  # noqa: F401
    events,  # noqa: F401
    explain,  # noqa: F401
    keys,  # noqa: F401
    manifests,  # noqa: F401
    plan,  # noqa: F401
    pools,  # noqa: F401
    prices,  # noqa: F401
    profile,  # noqa: F401
    replay,  # noqa: F401
    schema,  # noqa: F401
    simulate,  # noqa: F401
    simulate_engine,  # noqa: F401
    stack,  # noqa: F401
    trace,  # noqa: F401
    validate,  # noqa: F401
    zombies,  # noqa: F401
)
