"""`make bench-gateways`: what our gateway costs beside others, in one run.

One engine that takes no time; the same clients, chats and streams for each gateway; rounds that
take turns, medians. Ours has everything on: keys, classifier, sessions, decisions on record, usage,
metrics. Engine, gateways and clients are processes of their own and share the machine's cores, so
the direct figure is what the harness itself can do.
"""

import argparse
import os
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orchestrator.config.load import state_directory
from tests.benchmarks.gateways import contenders as c
from tests.benchmarks.gateways.cost import cost
from tests.benchmarks.gateways.load import SCENARIOS, Figures, Scenario, Target, measure

ONE, MANY = SCENARIOS[0], SCENARIOS[1]
out = Console()


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds."""

    figures: Figures
    cpu_s: float | None
    """Processor time of the gateway for each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=state_directory() / "bench-gateways")
    parser.add_argument("--peers", type=Path, default=Path(".venv/peers"), help="where they are")
    parser.add_argument("--json", action="store_true", help="print the report and nothing else")
    parser.add_argument("--ray", action="store_true", help="ours in Ray Serve too, both ways")
    parser.add_argument("--profile", action="store_true", help="where our gateway's time goes")
    parser.add_argument("--cost", action="store_true", help="our gateway's processor time alone")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        c.serve(options.serve)
        return
    out.quiet = options.json
    with _interrupted_by_polite_kill():
        options.out.mkdir(parents=True, exist_ok=True)
        with c.Contenders(options.out.absolute(), options.peers.absolute()) as contenders:
            if options.profile:
                from tests.benchmarks.gateways.stages import profile

                report = profile(contenders, options, out)
            elif options.cost:
                report = cost(contenders, options, out)
            else:
                report = compare(contenders, options)
    name = "profile" if options.profile else "cost" if options.cost else "report"
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2)
    file = options.out / f"{name}.json"
    file.write_bytes(text)
    if options.json:
        print(text.decode())
    out.print(f"figures: {file}")


@contextmanager
def _interrupted_by_polite_kill() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(contenders: c.Contenders, options: argparse.Namespace) -> dict[str, Any]:
    skipped: dict[str, str] = {}
    targets = [contenders.direct(), contenders.ours()]
    if options.ray:
        targets += contenders.in_ray(out.print)
    for name, start in (
        (c.RUST, contenders.rust),
        (c.PORTKEY, contenders.portkey),
        (c.LITELLM, contenders.litellm),
    ):
        found = start()
        if isinstance(found, Target):
            targets.append(found)
        else:
            skipped[name] = found
    for target in targets:
        out.print(f"waiting for {target.name}")
        c.wait_for(target)
    for name, reason in skipped.items():
        out.print(f"[yellow]{name} is left out:[/yellow] {reason}")
    found = side_by_side(targets, options.rounds, options.seconds)
    for scenario in SCENARIOS:
        out.print(_table(scenario, {t.name: found[scenario, t.name] for t in targets}))
    out.print(
        f"{os.cpu_count()} cores for clients, gateway and engine together: no figure can be above "
        "direct, which is what the harness itself can do. CPU: the gateway's own, per request."
    )
    verdicts = _verdicts(found, [t.name for t in targets])
    out.print(_verdict_table(verdicts))
    return {
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "skipped": skipped,
        "scenarios": {
            scenario.title: {
                t.name: {
                    **asdict(found[scenario, t.name].figures),
                    "cpu_s": found[scenario, t.name].cpu_s,
                }
                for t in targets
            }
            for scenario in SCENARIOS
        },
        "aims": verdicts,
    }


def side_by_side(
    targets: list[Target], rounds: int, seconds: float
) -> dict[tuple[Scenario, str], Measured]:
    """Medians of rounds that take turns, after one that only warms up."""
    runs: dict[tuple[Scenario, str], list[tuple[Figures, float | None]]] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        transient=True,
        auto_refresh=False,  # a thread that draws would take the clients' time
    ) as progress:
        task = progress.add_task("", total=(rounds + 1) * len(SCENARIOS) * len(targets))
        for number in range(rounds + 1):
            for scenario in SCENARIOS:
                for target in targets:
                    progress.update(task, description=f"{scenario.title}: {target.name}")
                    progress.refresh()
                    one = _measure(target, scenario, seconds if number else seconds / 4)
                    if number:
                        runs.setdefault((scenario, target.name), []).append(one)
                    progress.advance(task)
    return {key: _median(found) for key, found in runs.items()}


def _measure(target: Target, scenario: Scenario, seconds: float) -> tuple[Figures, float | None]:
    before_s = c.processor_s(target.pid)
    figures, answers = uvloop.run(measure(target, scenario, seconds))
    cpu_s = (c.processor_s(target.pid) - before_s) / answers if target.pid else None
    return figures, cpu_s


def _median(runs: list[tuple[Figures, float | None]]) -> Measured:
    names = ("requests_per_s", "tokens_per_s", "p50_s", "p95_s")
    figures = Figures(*(statistics.median(getattr(f, name) for f, _ in runs) for name in names))
    cpu_s = [cpu_s for _, cpu_s in runs if cpu_s is not None]
    return Measured(figures, statistics.median(cpu_s) if cpu_s else None)


def _table(scenario: Scenario, by_name: dict[str, Measured]) -> Table:
    rate = "tokens/s" if scenario.stream else "requests/s"
    table = Table("", title=scenario.title)
    for column in (rate, "of direct", "p50 ms", "p95 ms", "added ms", "CPU µs"):
        table.add_column(column, justify="right")
    first = by_name[c.DIRECT].figures
    for name, measured in by_name.items():
        f = measured.figures
        table.add_row(
            name,
            f"{f.tokens_per_s if scenario.stream else f.requests_per_s:,.0f}",
            f"{f.requests_per_s / first.requests_per_s:.3f}",
            *(f"{s * 1e3:.3f}" for s in (f.p50_s, f.p95_s)),
            f"{(f.p50_s - first.p50_s) * 1e3:+.3f}",
            f"{measured.cpu_s * 1e6:,.0f}" if measured.cpu_s is not None else "",
        )
    return table


def _verdicts(
    found: dict[tuple[Scenario, str], Measured], names: list[str]
) -> list[dict[str, Any]]:
    """Each aim, with what was measured."""
    verdicts = []
    ratios = ((c.LITELLM, 40.0), (c.PORTKEY, 2.0), (c.RUST, 0.3))
    for scenario in SCENARIOS:
        ours = found[scenario, c.OURS].figures
        aims = ratios if scenario.clients > 1 else ()
        for peer, aim in [(c.RUST, 1.0)] if scenario.stream else aims:
            if peer in names:
                ratio = ours.requests_per_s / found[scenario, peer].figures.requests_per_s
                rate = "tokens/s" if scenario.stream else "requests/s"
                verdicts.append(
                    {
                        "scenario": scenario.title,
                        "what": f"{rate} of {peer}",
                        "aim": f"≥ {aim:g}×",
                        "measured": f"{ratio:.2f}×",
                        "met": ratio >= aim,
                    }
                )
        if scenario.clients == 1 and not scenario.stream:
            added_s = ours.p50_s - found[scenario, c.DIRECT].figures.p50_s
            verdicts.append(
                {
                    "scenario": scenario.title,
                    "what": "p50 added",
                    "aim": "< 0.4 ms",
                    "measured": f"{added_s * 1e3:.3f} ms",
                    "met": added_s < 0.0004,
                }
            )
    return verdicts


def _verdict_table(verdicts: list[dict[str, Any]]) -> Table:
    table = Table("", "what", "aim", "found", "", title="aims")
    for v in verdicts:
        met = "[green]met[/green]" if v["met"] else "[red]missed[/red]"
        table.add_row(v["scenario"], v["what"], v["aim"], v["measured"], met)
    return table


if __name__ == "__main__":
    main()
