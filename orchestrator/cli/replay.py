"""`replay`: a trace against the running endpoint, with a live table."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.config.load import ConfigurationError, load, state_directory
from orchestrator.traces import arrivals as traces
from orchestrator.traces.requests import TraceError

SYNTHETIC_S = 300


@app.command()
def replay(
    trace: Annotated[
        Path | None,
        typer.Option(
            help="CSV or CSV.gz with arrival_s,prompt_tokens,output_tokens. "
            "Default: a synthetic conversation service."
        ),
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0.001, help="Seconds of the trace that pass in one second.")
    ] = 1.0,
    max_requests: Annotated[int, typer.Option(min=1, help="Stop after so many.")] = 100_000,
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Cut longer prompts.")] = 2000,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Cut longer answers.")] = 1000,
    mix: Annotated[
        str, typer.Option(help="Shares by workload: 'assistant=3,records=1'. Default: equal.")
    ] = "",
    model: Annotated[str, typer.Option(help="Default: the first of the configuration.")] = "",
    seed: Annotated[int, typer.Option(help="Of the prompts and the mix.")] = 0,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Default: .orchestrator/replays/TIME.")
    ] = None,
    config: Config = Path("clusters/local"),
    as_json: Json = False,
) -> None:
    """Drive the running endpoint with a trace; write a report and a timeline.

    API keys are read from .orchestrator/keys/WORKLOAD. Exit code 1 when a request failed.
    """
    import openai  # slow to import, as are the plots: only what runs a replay waits for them

    from orchestrator.cli.live import base_url, clip, drive, read_callers, show

    try:
        loaded = load(config)
        arrivals = traces.read(trace) if trace else traces.synthetic_conversation(SYNTHETIC_S, seed)
        callers = read_callers(mix, loaded)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except (TraceError, ValueError) as error:
        raise refuse(error, 2) from None
    phase = traces.Phase(arrivals[-1].arrival_s / time_scale + 1, time_scale)
    arrivals = traces.rescale(arrivals, [phase])[:max_requests]
    run_id = time.strftime("%Y%m%dT%H%M%S")
    try:
        result = asyncio.run(
            drive(
                loaded,
                clip(arrivals, max_prompt_tokens, max_output_tokens),
                callers,
                model or loaded.configuration.models[0].name,
                run_id,
                seed,
                quiet=as_json,
            )
        )
    except openai.APIError as error:
        raise refuse(f"{base_url(loaded)} does not serve: {error}; see 'orchestrator up'") from None
    directory = out_dir or state_directory() / "replays" / run_id
    about = {
        "trace": str(trace or "synthetic"),
        "time_scale": time_scale,
        "run_id": run_id,
        "config_version": loaded.version,
    }
    report = result.write(directory, about, loaded)
    if as_json:
        print_json(report)
    else:
        show(report)
        out.print(f"report, requests and timeline: {directory}", soft_wrap=True)
    if report["not_ok"]:
        raise typer.Exit(1)
