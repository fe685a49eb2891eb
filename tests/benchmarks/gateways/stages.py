"""Where the processor time of a request goes, by stage: py-spy's samples of our gateway under load,
each counted for the stage of its innermost frame that has one, scaled to the processor time for a
request that was measured just before without it."""

import argparse
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.gateways import contenders as c
from tests.benchmarks.gateways.load import Scenario, Target, measure

SCENARIOS = (
    Scenario(32, 1024, stream=False),
    Scenario(32, 32 * 1024, stream=False),
    Scenario(32, 1024, stream=True),
)
SAMPLES_PER_S = 500
WAITS = re.compile(
    r"(Condition\.)?wait \(.*threading\.py|(ChainFiles\.)?sync \(|_worker \(.*concurrent/futures"
)
"""Of threads: for time, for work or a disk, which samplers do not always tell from work."""
FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^:]+):?\d*\)$")
STAGES = (
    ("timeouts", r".* asyncio/timeouts\.py"),
    ("server: write", r"ClientConnection\.write orchestrator/gateway/connection\.py"),
    ("server", r".* orchestrator/gateway/(asgi|connections?|framing|server)\.py"),
    ("authenticate", r".* (orchestrator/gateway/(access|jwt|jwks)|orchestrator/config/keys)\.py"),
    ("read the body", r".* orchestrator/gateway/request_body\.py"),
    ("parse the body", r".* orchestrator/gateway/(request|remote|engine_control)\.py"),
    ("parse the body", r".* orchestrator/gateway/dialects/(choices|fields|messages|responses)\.py"),
    ("classify", r".* (orchestrator/classify/.*|re2/\S*)"),
    ("sessions", r".* orchestrator/(sessions/.*|gateway/sensitivity\.py)"),
    ("audit row", r"\S*decided orchestrator/gateway/records\.py|record \S*facts_record\.py"),
    ("audit row", r".* orchestrator/ledger/audit\.py"),
    ("decide", r".* orchestrator/gateway/(affinity|decisions|ejection|placement|fair_queue)\.py"),
    ("decide", r".* orchestrator/policy/.*"),
    ("upstream: write", r"UpstreamConnection\.ask orchestrator/gateway/http1\.py"),
    ("upstream", r".* orchestrator/gateway/(http1|upstream)\.py"),
    ("account, log", r".* orchestrator/gateway/(accounting|telemetry|usage|inflight|series)\.py"),
    ("account, log", r".* orchestrator/(ledger/usage|gateway/(records|observer|access_log))\.py"),
    ("stream", r".* orchestrator/gateway/(stream|sse|answers|dialects/\S*)\.py"),
    ("relay", r".* orchestrator/gateway/(relay|attempts|call)\.py"),
    ("app", r".* orchestrator/gateway/\S*"),
    ("event loop, sockets", r"\S*run asyncio/runners\.py"),
)
_STAGES = [(stage, re.compile(pattern)) for stage, pattern in STAGES]
THREADS = (
    ("usage-ledger", "thread: usage"),
    ("audit-log", "thread: audit"),
    ("access-log", "thread: access log"),
)


def profile(contenders: c.Contenders, options: argparse.Namespace, out: Console) -> dict[str, Any]:
    """Raises FileNotFoundError without py-spy."""
    sampler = options.peers.absolute() / "bin" / "py-spy"
    if not sampler.exists():
        raise FileNotFoundError(f"{sampler} is not there; `make bench-gateways` installs it")
    target = contenders.ours()
    c.wait_for(target)
    report: dict[str, Any] = {}
    for scenario in SCENARIOS:
        found = _profile(target, scenario, sampler, options.out.absolute(), 4 * options.seconds)
        report[scenario.title] = found
        out.print(_table(scenario, found))
    return report


def _profile(
    target: Target, scenario: Scenario, sampler: Path, folder: Path, seconds: float
) -> dict[str, Any]:
    uvloop.run(measure(target, scenario, 1))
    before_s = c.processor_s(target.pid)
    figures, answers = uvloop.run(measure(target, scenario, seconds))
    cpu_s = (c.processor_s(target.pid) - before_s) / answers
    raw = folder / f"{scenario.body_bytes}-{'stream' if scenario.stream else 'whole'}.stacks"
    command = [
        *(str(sampler), "record", "--pid", str(target.pid), "--threads", "--format", "raw"),
        *("--rate", str(SAMPLES_PER_S), "--duration", str(round(seconds)), "--output", str(raw)),
    ]
    with c.process(command, folder / "py-spy.log", {}) as sampling:
        time.sleep(0.5)
        uvloop.run(measure(target, scenario, seconds + 1))
        sampling.wait(60)
    stages, functions = read(raw)
    total = sum(stages.values())
    return {
        "requests_per_s": figures.requests_per_s,
        "cpu_s": cpu_s,
        "samples": total,
        "stages_s": {s: cpu_s * n / total for s, n in stages.most_common()},
        "functions_s": {f: cpu_s * n / total for f, n in functions.most_common(25)},
    }


def read(raw: Path) -> tuple[Counter[str], Counter[str]]:
    """Samples by stage, and by the function that was running."""
    stages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if WAITS.match(frames[-1]):
            continue
        names = [_short(frame) for frame in frames]
        thread = next((s for name, s in THREADS if name in frames[0]), None)
        stages[thread or _stage(names)] += int(count)
        functions[names[-1]] += int(count)
    return stages, functions


def _short(frame: str) -> str:
    """The function and the last parts of its file's path."""
    found = FRAME.match(frame)
    if found is None:
        return frame
    path = found["file"].split("/site-packages/")[-1]
    at = path.find("orchestrator/")
    path = path[at:] if at >= 0 else re.sub(r"^.*/python3\.\d+/", "", path)
    return f"{found['function']} {path}"


def _stage(names: list[str]) -> str:
    for name in reversed(names):
        for stage, pattern in _STAGES:
            if pattern.fullmatch(name):
                return stage
    return "other"


def _table(scenario: Scenario, found: dict[str, Any]) -> Table:
    table = Table(
        "stage",
        title=f"{scenario.title}: {found['cpu_s'] * 1e6:.0f} µs of processor time a request, "
        f"{found['requests_per_s']:,.0f} requests/s",
    )
    table.add_column("µs", justify="right")
    table.add_column("function")
    table.add_column("µs", justify="right")
    stages = [(name, f"{s * 1e6:.1f}") for name, s in found["stages_s"].items()]
    functions = [
        (re.sub(r" .*/", " ", name), f"{s * 1e6:.1f}") for name, s in found["functions_s"].items()
    ]
    for number in range(max(len(stages), len(functions))):
        left = stages[number] if number < len(stages) else ("", "")
        right = functions[number] if number < len(functions) else ("", "")
        table.add_row(*left, *right)
    return table
