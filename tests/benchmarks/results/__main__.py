"""What each policy costs on public traces at public prices, and how near that is to the least that
any policy can cost.

python -m tests.benchmarks.results [--quick] [--ablate]
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from rich.console import Console

from orchestrator.cli.app import err
from orchestrator.cli.progress import progress
from orchestrator.config.load import state_directory
from orchestrator.simulate.prices import SeriesError
from orchestrator.traces.requests import TraceError
from tests.benchmarks.results.market import MARKETS
from tests.benchmarks.results.page import page, table
from tests.benchmarks.results.policies import ABLATED, COMPARED
from tests.benchmarks.results.row import Row, measure
from tests.benchmarks.results.traces import SERVEGEN_DAYS, TRACES

DATA = Path("../shared/data")
WIDEST = 300
out = Console(soft_wrap=True)


def main() -> None:
    options = _options()
    rows = [
        Row(trace, market)
        for trace in TRACES
        for market in MARKETS
        if not (options.quick and trace.is_long)
        and all(word in f"{trace.name} {market.name}" for word in options.only)
    ]
    if not rows:
        names = ", ".join(Row(trace, market).name for trace in TRACES for market in MARKETS)
        sys.exit(f"--only {' '.join(options.only)}: no such row; there are: {names}")
    contenders = ABLATED if options.ablate else COMPARED
    report = {"rows": [], "skipped": [], "days": options.days, "seed": options.seed}
    options.out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        missing = [name for name in row.files if not (options.data / name).exists()]
        if missing:
            why = f"{options.data / missing[0]} is not there; give the data's folder with --data"
            report["skipped"].append((row.name, why))
            out.print(f"{row.name}: left out: {why}")
            continue
        try:
            found = measure(row, contenders, options.data, options.days, options.seed, _shown)
        except (TraceError, SeriesError) as error:
            sys.exit(str(error))
        report["rows"].append(found)
        # After each: what takes long is not lost.
        (options.out / "results.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        (options.out / "results.html").write_text(page(report), encoding="utf-8")
    shown = table(report["rows"], verdicts=not options.ablate)
    # Whole, however narrow the terminal is.
    Console(width=max(out.width, WIDEST)).print(shown)
    out.print(f"results.json and results.html: {options.out}")


@contextmanager
def _shown(what: str, total: float | None) -> Iterator[Callable[[float], None]]:
    if total is not None:
        with progress(what, total) as step:
            yield step
    else:
        with err.status(what):
            yield lambda _: None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with traces/, prices/, ...")
    parser.add_argument("--out", type=Path, default=state_directory() / "results")
    parser.add_argument("--quick", action="store_true", help="short traces alone")
    parser.add_argument("--ablate", action="store_true", help="the planner without parts of it")
    parser.add_argument("--only", nargs="+", default=[], help="rows with these words in their name")
    parser.add_argument("--days", type=float, default=SERVEGEN_DAYS, help="of the long traces")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
