"""`explain`: the decision for a request, and the rules that made it."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, err, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.cli.policy import live_snapshot
from orchestrator.cli.requests import RequestError, read_request
from orchestrator.config.load import ConfigurationError, Loaded, load
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.explain import explain as explained
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.policy.view import View


@app.command()
def explain(
    request: Annotated[Path, typer.Option(help="JSON: workload, model, data_class, max_tokens.")],
    config: Config = Path("clusters/local"),
    as_json: Json = False,
) -> None:
    """The decision for a request, every candidate, and the rule that rejected it.

    Asks the running controller for its snapshot; without one, explains a fleet at rest. Shows the
    workload's rules, each from the workload itself, from a profile, or by default.
    """
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
    decision = decide(facts, View(catalogue, live or _at_rest(catalogue)))
    result = explained(decision) | {"rules": rules(loaded, facts.workload)}
    if as_json:
        print_json(result)
    else:
        _show(result, live is not None)
    if decision.grant is None:
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


def _at_rest(catalogue: Catalogue) -> Snapshot:
    endpoints = {
        endpoint: EndpointState(ready_replicas=candidate.pool.min_replicas)
        for endpoint, candidate in catalogue.candidates.items()
    }
    return Snapshot(config_version=catalogue.version, created_at_s=time.time(), endpoints=endpoints)


def _show(result: dict[str, Any], live: bool) -> None:
    chosen = result["decision"]
    source = "the running fleet" if live else "a fleet at rest (no controller answers)"
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
