"""`plan`: what a change of the rules would change."""

import asyncio
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.checks import check
from orchestrator.cli.explain import readable
from orchestrator.cli.requests import (
    MOST_RECORDED,
    RequestError,
    read_recorded,
    read_requests,
    read_trace,
)
from orchestrator.config.diff import Difference, differences
from orchestrator.config.load import ConfigurationError, Loaded, load, state_directory
from orchestrator.config.store import PolicyStore
from orchestrator.controller.quotes import offline
from orchestrator.ledger.audit_read import AuditError
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.plan import Group, Move, Outcome, Plan, situations, typical_requests
from orchestrator.policy.plan import plan as planned
from orchestrator.traces.requests import TraceError


@app.command()
def plan(
    directory: Annotated[Path | None, typer.Argument(help="The changed configuration.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="A configuration directory. Default: the version in force.")
    ] = None,
    rollback: Annotated[bool, typer.Option(help="Back to the previous version.")] = False,
    requests: Annotated[
        Path | None,
        typer.Option(help="A JSON object a line: workload, model, data_class, max_tokens."),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="CSV or CSV.gz with arrival_s,prompt_tokens,output_tokens[,workload]."),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            help="With --replay: CSV with time_s,pool,usd_per_gpu_hour; over what is configured."
        ),
    ] = None,
    recorded: Annotated[
        bool, typer.Option(help=f"The last {MOST_RECORDED:,} requests of the audit trail.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What would change: the configuration, who would move where and why, and what data may newly
    reach a zone.

    Requests are decided under both rules in several situations: at rest, all ready, bursting, home
    down. Unless told whose, they are of every workload, model and data class. A trace also runs
    through both fleets in simulated time, where the variants say their `performance`: what each
    would cost, and how it would serve.
    """
    if (directory is None) != rollback or (against and rollback):
        raise refuse("give either a configuration directory or --rollback", 2)
    if sum(map(bool, (requests, replay, recorded))) > 1:
        raise refuse("give one of --requests, --replay and --recorded", 2)
    if prices and not replay:
        raise refuse("--prices are for --replay; give a trace", 2)
    try:
        before, after = _sides(directory, against)
        old = Catalogue(before.configuration, before.version)
        new = Catalogue(after.configuration, after.version)
        models = {**_models(before), **_models(after)}
        if requests:
            asked = read_requests(requests, models)
        elif replay:
            asked = read_trace(replay, models)
        elif recorded:
            asked = read_recorded(state_directory() / "audit", models, old)
        else:
            asked = typical_requests(old, new)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except (RequestError, TraceError, AuditError) as error:
        raise refuse(error, 2) from None
    old_views, new_views = situations(old, new, {**_prices(after), **_prices(before)})
    found = planned(asked, (old, old_views), (new, new_views))
    changes = differences(before, after)
    simulated = _simulated(replay, prices, old, new) if replay else {}
    if as_json:
        about = {"before": before.version, "after": after.version}
        said = {"configuration": [asdict(c) for c in changes]} | _plain(found)
        print_json(about | said | ({"simulated": simulated} if replay else {}))
        return
    out.print(f"version {before.version} → {after.version}, {len(asked)} requests")
    _show_changes(changes)
    _show_reaches(found)
    _show_moves(found)
    if replay:
        _show_simulated(simulated)


def _simulated(trace: Path, prices: Path | None, old: Catalogue, new: Catalogue) -> dict[str, Any]:
    """Reports `before` and `after`, or why they are `left_out`."""
    # Slow to import: only who simulates waits for it.
    from orchestrator.cli.foreseen import NotForeseen, foresee
    from orchestrator.simulate.prices import SeriesError

    try:
        return dict(foresee(trace, prices, old, new))
    except NotForeseen as why:
        return {"left_out": str(why)}
    except SeriesError as error:
        raise refuse(error, 2) from None


def _show_simulated(simulated: dict[str, Any]) -> None:
    from orchestrator.cli.simulation import show_change

    if "left_out" in simulated:
        line = f"not simulated: {simulated['left_out']}"
        out.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
        return
    show_change(simulated["before"], simulated["after"])


def _sides(directory: Path | None, against: Path | None) -> tuple[Loaded, Loaded]:
    """Before and after. Raises ConfigurationError."""
    store = PolicyStore(state_directory())
    current = store.current()
    if against is not None:
        before = load(against)
    elif current is not None:
        before = store.load(current.version)
    else:
        raise refuse("nothing was applied yet; give --against DIRECTORY", 2)
    if directory is None:
        previous = store.previous()
        if previous is None:
            raise refuse("there is no previous version", 2)
        return before, store.load(previous.version)
    after = load(directory)
    problems = check(directory, after)
    if problems:
        raise ConfigurationError(problems)
    return before, after


def _models(loaded: Loaded) -> dict[str, list[str]]:
    return {w.name: w.models for w in loaded.configuration.workloads}


def _prices(loaded: Loaded) -> dict[str, float]:
    """By pool, where nobody has to be asked over the network."""
    now_s = time.time()
    quotes = asyncio.run(offline(loaded.configuration, now_s))
    for pool in loaded.configuration.pools:
        trouble = quotes.trouble(pool.name)
        if trouble is not None:
            raise refuse(trouble)
    return {pool: quote.usd_per_gpu_hour for pool, quote in quotes.at(now_s).items()}


def _show_changes(changes: list[Difference]) -> None:
    if not changes:
        out.print("the configuration says the same")
    for change in changes:
        sign, text = {"added": ("+", "green"), "removed": ("-", "red")}.get(
            change.kind, ("~", "yellow")
        )
        line = f"{sign} {change.place}"
        if change.kind == "changed":
            line += f": {readable(change.before)} → {readable(change.after)}"
        elif not isinstance(change.after or change.before, dict):
            value = change.after if change.kind == "added" else change.before
            line += f": {readable(value)}"
        out.print(line, style=text, markup=False, highlight=False, soft_wrap=True)


def _show_reaches(found: Plan) -> None:
    for reach in found.reaches:
        line = (
            f"! up to {reach.data_class.label} data of {reach.workload} may newly reach zone "
            f"{reach.zone} ({reach.jurisdiction})"
        )
        out.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for workload, marker in found.unmarked:
        line = f"! '{marker}' no longer raises the class of requests of {workload}"
        out.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for kind in found.loosened:
        line = f"! {kind.replace('_', ' ')} in a request raises its class less than before"
        out.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)


def _show_moves(found: Plan) -> None:
    if not found.moves:
        out.print("no request would move")
        return
    total = {(g.workload, g.model): g.requests for g in found.groups}
    table = Table("workload", "model", "from", "to", "share", "data", "when", "because")
    for move in found.moves:
        table.add_row(
            move.workload,
            move.model,
            _place(move.before),
            _place(move.after),
            f"{move.requests / total[move.workload, move.model]:.0%}",
            ", ".join(c.label for c in sorted(move.data_classes)),
            ", ".join(move.situations),
            f"{move.rule}: {move.sentence}",
        )
    out.print(table)


def _place(outcome: Outcome) -> str:
    return str(outcome) if outcome.denied else f"{outcome} ({outcome.zone})"


def _plain(found: Plan) -> dict[str, Any]:
    return {
        "groups": [_plain_group(group) for group in found.groups],
        "moves": [_plain_move(move) for move in found.moves],
        "reaches": [
            {
                "workload": r.workload,
                "zone": r.zone,
                "jurisdiction": r.jurisdiction,
                "data_class": r.data_class.label,
            }
            for r in found.reaches
        ],
        "unmarked": [{"workload": w, "marker": marker} for w, marker in found.unmarked],
        "loosened": list(found.loosened),
    }


def _plain_group(group: Group) -> dict[str, Any]:
    def side(outcomes: Counter[Outcome], classes: Counter[Any]) -> dict[str, Any]:
        return {
            "runs": [
                {
                    "zone": outcome.zone,
                    "pool": outcome.pool,
                    "variant": outcome.variant,
                    "share": count / group.requests,
                }
                for outcome, count in sorted(outcomes.items())
                if not outcome.denied
            ],
            "denied": {
                outcome.denied: count / group.requests
                for outcome, count in sorted(outcomes.items())
                if outcome.denied
            },
            "data_classes": {c.label: count for c, count in sorted(classes.items())},
        }

    return {
        "workload": group.workload,
        "model": group.model,
        "requests": group.requests,
        "before": side(group.before, group.classes_before),
        "after": side(group.after, group.classes_after),
    }


def _plain_move(move: Move) -> dict[str, Any]:
    return {
        "workload": move.workload,
        "model": move.model,
        "before": asdict(move.before),
        "after": asdict(move.after),
        "requests": move.requests,
        "situations": move.situations,
        "data_classes": [c.label for c in sorted(move.data_classes)],
        "rule": move.rule,
        "detail": move.sentence,
    }
