"""`simulate-engine`: an engine for machines without GPUs."""

import math
from typing import Annotated

import typer
from aiohttp import web

from orchestrator.cli.app import app, out, refuse
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from orchestrator.simulate.faults import Fault


@app.command()
def simulate_engine(
    model: Annotated[str, typer.Option(help="The name that it serves.")] = "tiny",
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 9000,
    ttft_s: Annotated[float, typer.Option(min=0, help="Time to first token.")] = 0.05,
    itl_s: Annotated[float, typer.Option(min=0, help="Time between tokens.")] = 0.01,
    prefill_tokens_per_s: Annotated[
        float, typer.Option(min=1, help="Of a prompt, on top of --ttft-s. Default: all at once.")
    ] = math.inf,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Size of the batch.")] = 8,
    max_model_len: Annotated[int, typer.Option(min=1, help="Context length.")] = 4096,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="KIND:AFTER_TOKENS:RATE, such as cut:3:0.1; may be given again."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what chance decides.")] = 0,
) -> None:
    """Serve vLLM's API without a model, for a pool of kind 'openai'; Ctrl-C stops it.

    Faults: status, rate_limit, unauthorized, context_length, hang, stall, cut, error_event,
    no_usage, malformed.
    """
    try:
        faults = [Fault.parse(text) for text in fault or []]
    except ValueError as error:
        raise refuse(f"--fault {error}", 2) from None
    spec = EngineSpec(model, ttft_s, itl_s, max_num_seqs, max_model_len, prefill_tokens_per_s)

    async def application() -> web.Application:
        return SimulatedEngine(spec, faults, seed=seed).application()

    out.print(f"[green]Serving[/green] '{model}' at http://127.0.0.1:{port}; Ctrl-C stops it")
    try:
        web.run_app(
            application(), host="127.0.0.1", port=port, print=None, handler_cancellation=True
        )
    except OSError as error:
        raise refuse(f"port {port}: {error.strerror}; give another --port") from None
