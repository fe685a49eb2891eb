"""How long a configuration takes to load and check: the example company, and 2,000 workloads.

`load` is what the CLI and the controller call; the CLI's wall time adds the interpreter's start and
the imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from orchestrator.config.load import load
from tests.benchmarks.decide import company

EXAMPLE = Path(__file__).parents[2] / "clusters" / "example"
PER_FILE = 500
PROFILES = 50


class _WrittenOut(yaml.CSafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def write_company(directory: Path, workloads: int) -> Path:
    """A company of so many workloads, every second of which inherits most of its fields."""
    document = dict(_sections(workloads))
    made = document.pop("workloads")
    (directory / "company.yaml").write_text(yaml.dump(document, Dumper=_WrittenOut))
    for start in range(0, len(made), PER_FILE):
        part = {"workloads": made[start : start + PER_FILE]}
        text = yaml.dump(part, Dumper=_WrittenOut, sort_keys=False)
        (directory / f"workloads-{start:05}.yaml").write_text(text)
    return directory


def _sections(workloads: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    made = json.loads(company(workloads, 50, 40).configuration.model_dump_json())
    for number, cluster in enumerate(made["clusters"]):
        cluster["url"] = f"http://10.0.0.{number}:8000"
        cluster["dashboard_url"] = f"http://10.0.0.{number}:8265"
    # Places that nobody contradicts: what is measured is a company that passes.
    for zone in made["zones"]:
        zone.update(max_data_class="restricted", certifications=["ISO27001", "C5", "HIPAA"])
    everywhere = [zone["name"] for zone in made["zones"]]
    profiles = []
    for number, workload in enumerate(made["workloads"]):
        workload["allowed_zones"] = everywhere
        runs = {
            pool
            for model in made["models"]
            if model["name"] in workload["models"]
            for variant in model["variants"]
            for pool in variant["pools"]
        }
        workload["burst"]["pools"] = sorted(runs)[:3]
        workload["price_ceiling"] = {"usd_per_gpu_hour": 6}
        workload["when_infeasible"] = {"queue_s": 2}
        if number < PROFILES:
            profiles.append({**workload, "name": f"profile-{number}"})
        elif number % 2:
            profile = profiles[number % PROFILES]
            workload["inherits"] = profile["name"]
            for field in ("models", "allowed_zones", "preferred_zones", "slo", "burst"):
                del workload[field]
    yield from made.items()
    yield "profiles", profiles


def seconds(directory: Path, repeats: int) -> float:
    """The median of so many loads."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        load(directory)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def cli_seconds(directory: Path) -> float:
    command = [sys.executable, "-m", "orchestrator.cli", "validate", str(directory)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as made:
        large = write_company(Path(made), options.workloads)
        for name, directory, repeats in (
            ("clusters/example", EXAMPLE, 7),
            (f"{options.workloads} workloads", large, 3),
        ):
            report[name] = {"load_s": seconds(directory, repeats), "cli_s": cli_seconds(directory)}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    table = Table("", "load", "orchestrator validate")
    for name, figures in report.items():
        table.add_row(name, f"{figures['load_s']:.3f} s", f"{figures['cli_s']:.2f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
