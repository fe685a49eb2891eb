"""What a request and a streamed chunk cost our gateway in processor time, which a machine that is
busy with other things hardly changes: the least of several rounds."""

import argparse
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.gateways import contenders as c
from tests.benchmarks.gateways.engine import TOKENS
from tests.benchmarks.gateways.load import SCENARIOS, Scenario, Target, measure


def cost(contenders: c.Contenders, options: argparse.Namespace, out: Console) -> dict[str, Any]:
    target = contenders.ours()
    c.wait_for(target)
    found: dict[str, dict[str, float]] = {}
    for number in range(options.rounds + 1):
        for scenario in SCENARIOS:
            one = _measured(target, scenario, options.seconds if number else options.seconds / 4)
            before = found.get(scenario.title)
            if number and (before is None or one["cpu_s"] < before["cpu_s"]):
                found[scenario.title] = one
    for scenario in SCENARIOS:
        if scenario.stream:
            whole = Scenario(scenario.clients, scenario.body_bytes, stream=False)
            more_s = found[scenario.title]["cpu_s"] - found[whole.title]["cpu_s"]
            found[scenario.title]["chunk_cpu_s"] = more_s / TOKENS
    out.print(_table(found))
    return found


def _measured(target: Target, scenario: Scenario, seconds: float) -> dict[str, float]:
    assert target.pid is not None
    before_s, loop_before_s = c.processor_s(target.pid), _loop_s(target.pid)
    figures, answers = uvloop.run(measure(target, scenario, seconds))
    return {
        "cpu_s": (c.processor_s(target.pid) - before_s) / answers,
        "loop_cpu_s": (_loop_s(target.pid) - loop_before_s) / answers,
        "requests_per_s": figures.requests_per_s,
    }


def _loop_s(pid: int) -> float:
    """Processor time of the main thread, which runs the event loop."""
    main = next(thread for thread in psutil.Process(pid).threads() if thread.id == pid)
    return float(main.user_time + main.system_time)


def _table(found: dict[str, dict[str, float]]) -> Table:
    table = Table("µs of processor time", title="what our gateway costs")
    for column in ("a request", "in the event loop", "in threads", "a chunk"):
        table.add_column(column, justify="right")
    for title, one in found.items():
        parts = (one["cpu_s"], one["loop_cpu_s"], one["cpu_s"] - one["loop_cpu_s"])
        chunk_s = one.get("chunk_cpu_s")
        table.add_row(
            title,
            *(f"{s * 1e6:.0f}" for s in parts),
            "" if chunk_s is None else f"{chunk_s * 1e6:.2f}",
        )
    return table
