"""`demo`: the local stack saturates, bursts to the cloud, and comes back."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app, configuration_error, refuse
from orchestrator.cli.checks import check
from orchestrator.cli.options import Config
from orchestrator.cli.stack import interrupt_on_polite_kill, steps
from orchestrator.config.load import ConfigurationError, state_directory
from orchestrator.stack import processes
from orchestrator.stack.ray_head import StackError
from orchestrator.stack.up import up
from orchestrator.traces import arrivals as traces
from orchestrator.traces.requests import TraceError


@app.command()
def demo(
    trace: Annotated[
        Path | None,
        typer.Option(help="As for 'replay'. Default: a synthetic conversation service."),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Default: .orchestrator/demo.")
    ] = None,
    config: Config = Path("clusters/local"),
) -> None:
    """Bring the stack up, load it until it bursts, watch it come back, stop it.

    Exit code 1 when something was not as it should be.
    """
    import openai  # slow to import, as are the plots: only what runs a replay waits for them

    from orchestrator.cli.scene import play, show_checks

    state = state_directory()
    interrupt_on_polite_kill()
    try:
        arrivals = traces.read(trace) if trace else traces.synthetic_conversation(600, seed=0)
        with steps() as step:
            loaded = up(config, state, check, step)
        checks = asyncio.run(play(loaded, arrivals, str(trace or "synthetic"), out_dir))
    except ConfigurationError as error:
        raise configuration_error(error, False) from None
    except TraceError as error:
        raise refuse(error, 2) from None
    except (StackError, openai.APIError) as error:
        raise refuse(error) from None
    except KeyboardInterrupt:
        raise refuse("stopped") from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.stop_all(state)
    show_checks(checks)
    if not all(check.holds for check in checks):
        raise typer.Exit(1)
