"""`validate`: the whole of a configuration directory, and its probes."""

from pathlib import Path

from orchestrator.cli.app import Json, app, configuration_error, out, print_json
from orchestrator.cli.checks import classify_by
from orchestrator.config.load import ConfigurationError, load
from orchestrator.policy.probe import run_probes


@app.command()
def validate(directory: Path, as_json: Json = False) -> None:
    """Check a configuration directory as a whole, and run its probes."""
    try:
        loaded = load(directory)
        results = run_probes(directory, loaded, classify_by(loaded))
        problems = [problem for result in results for problem in result.problems]
        if problems:
            raise ConfigurationError(problems)
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    not_run = {r.name: r.not_run for r in results if r.not_run}
    passed = len(results) - len(not_run)
    if as_json:
        probes = {"passed": passed, "not_run": not_run}
        print_json({"valid": True, "version": loaded.version, "problems": [], "probes": probes})
        return
    c = loaded.configuration
    out.print(
        f"[green]valid[/green], version {loaded.version}: {len(c.zones)} zones, "
        f"{len(c.clusters)} clusters, {len(c.pools)} pools, {len(c.models)} models, "
        f"{len(c.workloads)} workloads, {passed} of {len(results)} probes passed"
    )
    for name, why in not_run.items():
        out.print(f"probe '{name}' was not run: {why}", style="yellow", markup=False)
