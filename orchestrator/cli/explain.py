"""`explain`: the decision for a request, and the rules that made it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, err, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.cli.policy import live_snapshot
from orchestrator.cli.recorded import NotRepeatable, repeat
from orchestrator.cli.requests import RequestError, read_request
from orchestrator.config.load import ConfigurationError, Loaded, load, state_directory
from orchestrator.config.probes import Fleet
from orchestrator.ledger.audit_read import AuditError
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.explain import explain as explained
from orchestrator.policy.situation import imagine
from orchestrator.policy.view import View

NEWCOMER = "explain"
"""In the part of a gateway that has nothing open yet: where a request goes when its turn comes, and
not that all is full at this moment."""


@app.command()
def explain(
    request_id: Annotated[
        str | None, typer.Argument(help="Of an answered request: its decision is made again.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="JSON: workload, model, data_class, max_tokens.")
    ] = None,
    config: Config = Path("clusters/local"),
    as_json: Json = False,
) -> None:
    """The decision for a request, every candidate, and the rule that rejected it.

    Asks the running controller for its snapshot; without one, explains a fleet at rest. Shows the
    workload's rules, each from the workload itself, from a profile, or by default.

    With REQUEST_ID (the answer's x-request-id), makes the recorded decision again from the audit
    trail; exit code 1 when it does not match the record.
    """
    if (request_id is None) == (request is None):
        raise refuse("give either the id of a request, or --request FILE", 2)
    if request_id is not None:
        _recorded(request_id, as_json)
        return
    assert request is not None
    try:
        loaded = load(config)
        models = {w.name: w.models for w in loaded.configuration.workloads}
        facts = read_request(request, models)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except RequestError as error:
        raise refuse(error, 2) from None
    catalogue = Catalogue(loaded.configuration, loaded.version)
    live = live_snapshot(loaded)
    if live is not None and live.config_version != loaded.version:
        err.print(
            f"{config} is version {loaded.version}, and the stack runs {live.config_version}: this "
            "is what it would decide once that is applied",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    snapshot = live or imagine(catalogue, Fleet(), facts.workload)
    decision = decide(facts, View(catalogue, snapshot, NEWCOMER))
    result = explained(decision) | {"rules": rules(loaded, facts.workload)}
    if as_json:
        print_json(result)
    else:
        _show(result, "the running fleet" if live else "a fleet at rest (no controller answers)")
    if decision.grant is None:
        raise typer.Exit(1)


def _recorded(request_id: str, as_json: bool) -> None:
    try:
        repeated = list(repeat(state_directory(), request_id))
    except (AuditError, NotRepeatable) as error:
        raise refuse(error) from None
    if not repeated:
        raise refuse(f"no decision for '{request_id}' is on record; see 'audit show --rows'")
    results = [
        explained(r.decision)
        | {
            "request_id": request_id,
            "attempt": r.row.attempt,
            "time_s": r.row.time_s,
            "facts": dict(r.row.facts),
            "matches_record": r.matches,
            "rules": rules(r.loaded, r.row.workload),
        }
        for r in repeated
    ]
    if as_json:
        print_json(results)
    else:
        for result in results:
            when = datetime.fromtimestamp(result["time_s"], UTC)
            out.print(f"attempt {result['attempt']}, {when:%Y-%m-%d %H:%M:%S} UTC", highlight=False)
            _show(result, "the fleet as it was")
            if result["matches_record"]:
                out.print("[green]made again, it matches the record[/green]")
            else:
                out.print("[red]made again, it does not match the record[/red]")
    if not all(r.matches for r in repeated):
        raise typer.Exit(1)


def rules(loaded: Loaded, workload: str) -> dict[str, dict[str, Any]]:
    """By field of the workload: its value, and where that comes from."""
    spec = next(w for w in loaded.configuration.workloads if w.name == workload)
    inherited = loaded.inherited.get(workload, {})
    found = {}
    for field, value in spec.model_dump(mode="json", exclude={"name", "inherits"}).items():
        if field in inherited:
            source = f"profile {inherited[field]}"
        else:
            source = "workload" if field in spec.model_fields_set else "default"
        found[field] = {"value": value, "from": source}
    return found


def _show(result: dict[str, Any], source: str) -> None:
    chosen = result["decision"]
    out.print(f"{result['data_class']} data, policy {result['policy_version']}, {source}")
    if chosen:
        out.print(f"[green]runs[/green] on {chosen['pool']} ({chosen['zone']})")
    else:
        out.print(f"[red]denied[/red]: {result['denied']}")
    table = Table("pool", "variant", "zone", "rejected by", "detail", "score")
    for c in result["candidates"]:
        score = "" if c["score"] is None else f"{c['score']:.3f}"
        table.add_row(
            c["pool"], c["variant"], c["zone"], c["rejected_by"] or "", c["detail"], score
        )
    out.print(table)
    table = Table("rule", "value", "from", box=None, pad_edge=False)
    for field, rule in result["rules"].items():
        table.add_row(field, escape(readable(rule["value"])), rule["from"])
    out.print(table)


def readable(value: Any) -> str:
    """A value of the configuration, without what says nothing."""
    if isinstance(value, dict):
        said = {k: v for k, v in value.items() if v not in (None, [], {})}
        return ", ".join(f"{k}: {readable(v)}" for k, v in said.items()) or "none"
    if isinstance(value, list):
        return "[" + ", ".join(map(readable, value)) + "]"
    return "none" if value is None else str(value)
