"""`validate` and `explain`."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, out, print_json, refuse
from orchestrator.cli.options import Config
from orchestrator.config.data_class import DataClass
from orchestrator.config.load import ConfigurationError, Loaded, load, state_directory
from orchestrator.config.spec import DataClassLabel
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import decide
from orchestrator.policy.explain import explain as explained
from orchestrator.policy.facts import Facts
from orchestrator.policy.snapshot import EndpointState, Snapshot
from orchestrator.policy.view import View


@app.command()
def validate(directory: Path, as_json: Json = False) -> None:
    """Check a configuration directory as a whole."""
    try:
        loaded = load(directory)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    if as_json:
        print_json({"valid": True, "version": loaded.version, "problems": []})
        return
    c = loaded.configuration
    out.print(
        f"[green]valid[/green], version {loaded.version}: {len(c.zones)} zones, "
        f"{len(c.clusters)} clusters, {len(c.pools)} pools, {len(c.models)} models, "
        f"{len(c.workloads)} workloads"
    )


class ExplainRequest(BaseModel):
    """The request file of `explain`: who asks for which model, with what label."""

    model_config = ConfigDict(extra="forbid")

    workload: str
    model: str
    data_class: DataClassLabel = DataClass.PUBLIC
    max_tokens: int = 0


@app.command()
def explain(
    request: Annotated[Path, typer.Option(help="JSON: workload, model, data_class, max_tokens.")],
    config: Config = Path("clusters/local"),
    as_json: Json = False,
) -> None:
    """The decision for a request, every candidate, and the rule that rejected it.

    Asks the running controller for its snapshot; without one, explains a fleet at rest.
    """
    try:
        loaded = load(config)
        asked = ExplainRequest.model_validate_json(request.read_bytes())
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    except OSError as error:
        raise refuse(f"{request}: {error.strerror}; give the path of a JSON file", 2) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise refuse(f"{request}:1: {where}: {first['msg']}", 2) from None
    catalogue = Catalogue(loaded.configuration, loaded.version)
    if asked.workload not in catalogue.workloads:
        known = ", ".join(catalogue.workloads)
        raise refuse(f"{request}:1: no workload '{asked.workload}'; there are: {known}", 2)
    snapshot, live = _snapshot(loaded, catalogue)
    facts = Facts(
        workload=asked.workload,
        model=asked.model,
        claimed=asked.data_class,
        max_tokens=asked.max_tokens,
    )
    decision = decide(facts, View(catalogue, snapshot))
    result = explained(decision)
    if as_json:
        print_json(result)
    else:
        _show(result, live)
    if decision.grant is None:
        raise typer.Exit(1)


def _snapshot(loaded: Loaded, catalogue: Catalogue) -> tuple[Snapshot, bool]:
    """The controller's snapshot and True, or that of a fleet at rest and False."""
    file = state_directory() / "secrets" / "controller-token"
    token = os.environ.get("ORCHESTRATOR_TOKEN") or (
        file.read_text().strip() if file.exists() else ""
    )
    url = f"{loaded.configuration.controller.url}/v1/snapshot"
    try:
        answer = httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=3)
        answer.raise_for_status()
        return Snapshot.model_validate_json(answer.content), True
    except (httpx.HTTPError, ValidationError):
        at_rest = {
            endpoint: EndpointState(ready_replicas=candidate.pool.min_replicas)
            for endpoint, candidate in catalogue.candidates.items()
        }
        return (
            Snapshot(config_version=loaded.version, created_at_s=time.time(), endpoints=at_rest),
            False,
        )


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
