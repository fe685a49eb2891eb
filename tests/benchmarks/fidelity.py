"""Whether the simulator foretells what the local stack does.

    python -m tests.benchmarks.fidelity [--minutes 10] [--utilization 0.7] [--trace FILE]

Real Ray Serve and vLLM on loopback. `orchestrator profile` measures the home engine; a trace is
replayed at a rate that keeps it busy to the share asked for; the same requests, with the lengths
that vLLM counted, go through the simulator with the speeds that were measured. Both are printed
side by side. Nothing of the replay is told to the simulator but when requests were sent and how
long they were.
"""

import argparse
import csv
import json
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.table import Table

from orchestrator.cli.app import out
from orchestrator.config.load import state_directory
from orchestrator.traces.requests import read_blocks
from tests.e2e.conftest import LOCAL, ORCHESTRATOR, starting

ENDPOINT = "onprem-cpu/tiny-bf16"
SEQUENCES = 4
MOST_PROMPT_TOKENS, MOST_OUTPUT_TOKENS = 1500, 120
WORKLOAD = "records"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--utilization", type=float, default=0.7)
    parser.add_argument(
        "--trace", type=Path, default=Path("../shared/data/traces/azure2023_conv.csv.gz")
    )
    asked = parser.parse_args()
    directory = state_directory() / "fidelity"
    shutil.rmtree(directory, ignore_errors=True)
    arrival_s, prompt_tokens, output_tokens = _lengths(asked.trace)
    with starting() as (_, lines):
        list(takewhile(lambda line: "Ctrl-C" not in line, lines))
        url = f"http://127.0.0.1:8001/pools/{ENDPOINT}"
        measured = _orchestrator(
            *("profile", url, "--accelerator", "CPU", "--max-num-seqs", str(SEQUENCES)),
            *("--prompt-tokens", str(round(prompt_tokens))),
        )
        performance = measured["performance"]
        out.print_json(data={**performance, "overhead_s": measured["overhead_s"]})
        work_s = prompt_tokens / performance["prefill_tokens_per_s"]
        work_s += output_tokens / performance["decode_tokens_per_s"]
        scale = asked.utilization / work_s / (len(arrival_s) / float(arrival_s[-1]))
        requests = int(np.searchsorted(arrival_s, asked.minutes * 60 * scale))
        _orchestrator(
            *("replay", "--trace", str(asked.trace), "--time-scale", str(scale)),
            *("--mix", f"{WORKLOAD}=1", "--max-prompt-tokens", str(MOST_PROMPT_TOKENS)),
            *("--max-output-tokens", str(MOST_OUTPUT_TOKENS), "--out", str(directory)),
            *("--max-requests", str(requests)),
        )
    replayed = list(csv.DictReader((directory / "requests.csv").open()))
    trace = directory / "trace.csv"
    _write_trace(trace, replayed)
    foretold = _orchestrator(
        *("simulate", "--config", str(_configuration(directory, performance))),
        *("--trace", str(trace), "--out", str(directory / "simulated")),
    )
    _show(replayed, foretold)


def _orchestrator(*arguments: str) -> Any:
    done = subprocess.run([ORCHESTRATOR, *arguments, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _lengths(trace: Path) -> tuple[np.ndarray[Any, Any], float, float]:
    """Times of arrival; mean prompt and output tokens as the replay cuts them."""
    blocks = list(read_blocks(trace))
    prompts = np.concatenate([b.prompt_tokens for b in blocks])
    outputs = np.concatenate([b.output_tokens for b in blocks])
    return (
        np.concatenate([b.arrival_s for b in blocks]),
        float(np.minimum(prompts, MOST_PROMPT_TOKENS).mean()),
        float(np.minimum(outputs, MOST_OUTPUT_TOKENS).mean()),
    )


def _write_trace(path: Path, replayed: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arrival_s", "prompt_tokens", "output_tokens", "workload"])
        for row in replayed:
            rows.writerow([row["arrival_s"], row["prompt_tokens"], row["output_tokens"], WORKLOAD])


def _configuration(directory: Path, performance: dict[str, Any]) -> Path:
    """The local one, with what was measured."""
    target = directory / "config"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("keys.yaml"))
    path = target / "models.yaml"
    models = yaml.safe_load(path.read_text())
    models["models"][0]["variants"][0]["performance"] = [performance]
    path.write_text(yaml.safe_dump(models, sort_keys=False))
    return target


def _show(replayed: list[dict[str, str]], foretold: dict[str, Any]) -> None:
    ttft = np.array([float(r["ttft_s"]) for r in replayed if r["ttft_s"]])
    ends = max(float(r["end_s"]) for r in replayed if r["end_s"])
    tokens = sum(int(r["output_tokens"]) for r in replayed)
    of = foretold["by_workload"][WORKLOAD]
    table = Table("", "stack", "simulator", "off by")
    for name, real, simulated in (
        ("requests", float(len(replayed)), float(of["arrived"])),
        ("TTFT p50, s", float(np.quantile(ttft, 0.5)), of["ttft_p50_s"]),
        ("TTFT p95, s", float(np.quantile(ttft, 0.95)), of["ttft_p95_s"]),
        ("output tokens/s", tokens / ends, of["output_tokens"] / foretold["duration_s"]),
    ):
        table.add_row(name, f"{real:.3f}", f"{simulated:.3f}", f"{simulated / real - 1:+.1%}")
    out.print(table)


if __name__ == "__main__":
    main()
