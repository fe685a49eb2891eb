"""`simulate`: what a trace would have cost, and how it would have been served."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from orchestrator.cli.app import Json, app, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.config.load import ConfigurationError, load, state_directory
from orchestrator.traces.requests import TraceError

PLANNER = "planner"
EVERY = "all"
START = "2026-01-05"


@app.command()
def simulate(
    trace: Annotated[
        Path | None,
        typer.Option(
            help="CSV or CSV.gz with arrival_s,prompt_tokens,output_tokens[,workload]. "
            "Default: ten minutes of a synthetic conversation service."
        ),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="CSV with time_s,pool,usd_per_gpu_hour; over what is configured."),
    ] = None,
    supply: Annotated[
        Path | None, typer.Option(help="CSV with time_s,pool,replicas that can be had.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="What decides on capacity: planner, which ships, a baseline, or all. Several "
            "are compared. Default: planner."
        ),
    ] = None,
    bound: Annotated[
        bool, typer.Option("--bound", help="Also the least that any policy can cost.")
    ] = False,
    attainment: Annotated[
        float,
        typer.Option(min=0, max=1, help="The share of each workload in time that --bound is for."),
    ] = 0.99,
    mix: Annotated[
        str, typer.Option(help="Shares by workload: 'assistant=3,records=1'. Default: equal.")
    ] = "",
    tick_s: Annotated[float, typer.Option(min=0.01, help="Between looks at the fleet.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    start: Annotated[
        str, typer.Option(help="When it begins: schedules and tariffs go by it; UTC.")
    ] = START,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Default: .orchestrator/simulations/TIME.")
    ] = None,
    config: Config = Path("clusters/simulated"),
    as_json: Json = False,
) -> None:
    """Run a trace through a fleet in simulated time; write a report and a page.

    Replicas are as fast as the variants' `performance` says. Exit code 1 when a request was sent
    where its data may not be.
    """
    # Slow to import: only who simulates waits for it.
    from orchestrator.cli.arrivals import Trace, read_mix
    from orchestrator.cli.simulation import Inputs, bounded, run, show
    from orchestrator.policy.catalogue import Catalogue
    from orchestrator.simulate.decider import UnknownSpeed
    from orchestrator.simulate.page import page
    from orchestrator.simulate.prices import SeriesError, read_series
    from orchestrator.simulate.report import policies_of, report_of

    try:
        moment = moment_of(start)
        loaded = load(config)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        shares = read_mix(mix, loaded.configuration)
        inputs = Inputs(
            catalogue,
            Trace(trace, list(catalogue.workloads), shares, seed),
            read_series(prices, "usd_per_gpu_hour", catalogue.pools) if prices else {},
            read_series(supply, "replicas", catalogue.pools) if supply else {},
            moment.timestamp(),
            tick_s,
            seed,
        )
        runs = [run(inputs, name) for name in _policies(policy or [PLANNER])]
        least = bounded(inputs, attainment) if bound else None
    except (ConfigurationError, TraceError, SeriesError, UnknownSpeed, ValueError) as error:
        raise refuse(error, 2) from None
    about = {"trace": str(trace or "synthetic"), "start": moment.isoformat(), "seed": seed}
    report = report_of(runs, about, least)
    directory = out_dir or state_directory() / "simulations" / time.strftime("%Y%m%dT%H%M%S")
    _write(directory, report, page(runs, report))
    if as_json:
        print_json(report)
    else:
        show(report)
        out.print(f"report and page: {directory}", soft_wrap=True, markup=False, highlight=False)
    if any(of["residency_violations"] for of in policies_of(report)):
        raise typer.Exit(1)


def _policies(given: list[str]) -> list[str]:
    from orchestrator.simulate.baselines import BASELINES

    known = [PLANNER, *BASELINES]
    for name in given:
        if name not in (*known, EVERY):
            raise ValueError(
                f"--policy: there is no '{name}'; one of {', '.join(known)}, or {EVERY}"
            )
    return known if EVERY in given else list(dict.fromkeys(given))


def moment_of(given: str) -> datetime:
    """Raises ValueError."""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise ValueError(
            f"--start: '{given}' is no day or time; write it as 2030-01-31T12:00"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _write(directory: Path, report: dict[str, Any], page: str) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        (directory / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise refuse(f"{directory}: {error.strerror}; give another --out", 2) from None
