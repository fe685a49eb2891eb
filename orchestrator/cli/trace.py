"""`trace`: traces of requests: take them in, look at them, make them."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, err, out, print_json, refuse
from orchestrator.cli.durations import duration, seconds
from orchestrator.cli.progress import progress
from orchestrator.cli.shares import read_shares
from orchestrator.ledger import requests as ledger
from orchestrator.traces import public, servegen, synth, write
from orchestrator.traces.requests import Requests, TraceError, read_blocks
from orchestrator.traces.stats import Stats

trace = typer.Typer(no_args_is_help=True, help="Traces of requests: import, stats, synth.")
take = typer.Typer(no_args_is_help=True, help="Take a trace over into our format.")
app.add_typer(trace, name="trace")
trace.add_typer(take, name="import")

Source = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
Out = Annotated[
    Path | None, typer.Option("--out", help="A .csv or .csv.gz. Default: standard output.")
]
Time = partial(typer.Option, parser=seconds, metavar="TIME")
LARGEST_RATE_RPS = 5000.0
"""What a window of is held in memory at once."""


@take.command()
def azure(file: Source, out_file: Out = None) -> None:
    """Azure's LLM inference traces, 2023 and 2024."""
    _import("azure", file, out_file)


@take.command()
def burstgpt(file: Source, out_file: Out = None) -> None:
    """BurstGPT; requests that failed are left out."""
    _import("burstgpt", file, out_file)


@take.command()
def mooncake(file: Source, out_file: Out = None) -> None:
    """Mooncake's traces, with the ids of prefix blocks."""
    _import("mooncake", file, out_file)


@take.command()
def usage(
    file: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="A usage ledger, or the state it lies in.")
    ],
    out_file: Out = None,
) -> None:
    """What was asked of this orchestrator: times, lengths and workloads, never content."""
    path = file / ledger.FILE if file.is_dir() else file
    try:
        unknown = ledger.left_out(path)
        _write(out_file, write.blocks(ledger.requests(path), "workload"), None)
    except ledger.LedgerError as error:
        raise refuse(error, 2) from None
    if unknown:
        err.print(f"left out: {unknown:,} requests that reached no endpoint", highlight=False)


@trace.command()
def stats(file: Source, as_json: Json = False) -> None:
    """How many requests, how fast, how bursty, how long. Quantiles are right within 0.5 %."""
    found = Stats()
    try:
        with progress("reading", None) as step:
            for block in read_blocks(file):
                found.add(block)
                step(len(block))
    except TraceError as error:
        raise refuse(error, 2) from None
    summary = found.summary()
    if as_json:
        print_json(summary)
    else:
        _show(summary)


@trace.command(name="synth")
def synthesize(
    rate_rps: Annotated[
        float | None,
        typer.Option(min=0.001, max=LARGEST_RATE_RPS, help="Mean requests per second."),
    ] = None,
    cv: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Of the times between requests.")
    ] = 1.0,
    prompt_p50: Annotated[float, typer.Option(min=1, help="Tokens.")] = 1024,
    prompt_p90: Annotated[float, typer.Option(min=1, help="Tokens.")] = 4076,
    output_p50: Annotated[float, typer.Option(min=1, help="Tokens.")] = 115,
    output_p90: Annotated[float, typer.Option(min=1, help="Tokens.")] = 423,
    daily: Annotated[
        bool, typer.Option(help="Follow the hours of a day, from midnight on.")
    ] = False,
    clients: Annotated[
        Path | None, typer.Option(help="ServeGen's rates by client, instead of plain figures.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="ServeGen's lengths by client.")] = None,
    model: Annotated[str, typer.Option(help="Whose clients.")] = "m-small",
    workloads: Annotated[
        str, typer.Option(help="Shares of the requests: 'assistant=0.6,records=0.4'.")
    ] = "",
    from_s: Annotated[float | None, Time("--from", help="Begin so far into it.")] = None,
    to_s: Annotated[float | None, Time("--to", help="End so far into it.")] = None,
    duration_s: Annotated[
        float | None, Time("--duration", help="Instead of --to. Default: 1h.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same one draws the same trace.")] = 0,
    out_file: Out = None,
) -> None:
    """Make a trace: of log-normal lengths and a rate, or of the clients of a real service.

    With --clients and --rate-rps the rates of all clients are multiplied by one factor, so that
    their mean from --from to --to is that; their burstiness stays. Each client has one workload;
    without --clients each request is given one.
    """
    if to_s is not None and duration_s is not None:
        raise refuse("give --to or --duration, not both", 2)
    begin_s = from_s or 0.0
    end_s = to_s if to_s is not None else begin_s + (duration_s or 3600.0)
    if end_s <= begin_s:
        raise refuse("--to must lie after --from", 2)
    if prompt_p90 < prompt_p50 or output_p90 < output_p50:
        raise refuse("a p90 must not lie below its p50", 2)
    try:
        shares = read_shares("--workloads", workloads) if workloads else {}
        if clients is not None and tokens is not None:
            many = servegen.clients(clients, tokens, model)
            if rate_rps is not None:
                many = synth.scaled(many, rate_rps, begin_s, end_s)
            if shares:
                many = synth.assigned(many, shares, begin_s, end_s)
        elif clients is not None or tokens is not None:
            raise ValueError("--clients and --tokens go together")
        elif rate_rps is None:
            raise ValueError("give --rate-rps, or --clients and --tokens")
        else:
            lengths = synth.LogNormal(prompt_p50, prompt_p90, output_p50, output_p90)
            one = synth.steady(rate_rps, cv, lengths, end_s, daily)
            many = [synth.Client(one.windows, tuple(shares.items()))]
    except (TraceError, ValueError) as error:
        raise refuse(error, 2) from None
    _write(out_file, synth.synthesize(many, begin_s, end_s, seed), end_s - begin_s)


def _import(name: str, file: Path, out_file: Path | None) -> None:
    text = "hash_ids" if name == "mooncake" else None
    try:
        _write(out_file, write.blocks(public.rows(name, file), text), None)
    except TraceError as error:
        raise refuse(error, 2) from None


def _write(path: Path | None, blocks: Iterable[Requests], total_s: float | None) -> None:
    """Counts requests, or seconds of the trace where it is known how many there are."""
    with progress("writing", total_s) as step:

        def counted() -> Iterator[Requests]:
            before_s = 0.0
            for block in blocks:
                yield block
                step(len(block) if total_s is None else float(block.arrival_s[-1]) - before_s)
                before_s = float(block.arrival_s[-1])

        try:
            if path is None:
                count = write.write(sys.stdout, counted())
            else:
                count = write.write_file(path, counted())
        except OSError as error:
            raise refuse(f"{path or 'standard output'}: {error.strerror or error}", 2) from None
    err.print(f"{count:,} requests", highlight=False)


def _show(summary: dict[str, Any]) -> None:
    cv, share = summary["inter_arrival_cv"], summary["prefix_blocks_seen_before_share"]
    rate = summary["mean_rate_rps"]
    rows = {
        "requests": f"{summary['requests']:,}",
        "duration": duration(round(summary["duration_s"], 1)),
        "mean rate": f"{rate:.3g}/s" if rate is not None else "",
        "busiest second": f"{summary['busiest_second_requests']:,} requests",
        "busiest minute": f"{summary['busiest_minute_requests']:,} requests",
        "inter-arrival CV": f"{cv:.3g}" if cv is not None else "",
    }
    if share is not None:
        rows["prefix blocks"] = f"{summary['prefix_blocks']:,}, {share:.1%} seen before"
    table = Table("trace", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)
    lengths = Table("workload", "requests", "tokens", "mean", "p50", "p90", "p99", "max")
    for name, part in {"all": summary, **summary["workloads"]}.items():
        for side in ("prompt", "output"):
            figures = part[f"{side}_tokens"]
            shown = [f"{figures[k]:,.0f}" for k in ("mean", "p50", "p90", "p99", "max")]
            lengths.add_row(name, f"{part['requests']:,}", side, *shown)
    out.print(lengths)
