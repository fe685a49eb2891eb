"""`python -m tests.benchmarks.audit`: what the audit trail costs the gateway, its disk and those
who verify it. Appending is measured beside the same append to a bare list."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.ledger.audit import AuditLog, DecisionRow
from orchestrator.ledger.audit_files import files, opened
from orchestrator.ledger.audit_read import find, rows
from orchestrator.ledger.audit_verify import verify

out = Console()


def row(number: int) -> DecisionRow:
    endpoints = [f"pool-{n}/llama-8b-fp8" for n in range(4)]
    return DecisionRow(
        time_s=1.9e9 + number,
        request_id=f"{number:032x}",
        attempt=1,
        workload="assistant",
        key_id="k7f3a2",
        data_class="restricted",
        facts={
            "workload": "assistant",
            "model": "llama-8b",
            "gateway_id": "1f2e3d4c",
            "data_class": "internal",
            "total_tokens": number % 8000,
            "snapshot_age_s": number % 2000 / 1000,
            "inflight": dict.fromkeys(endpoints, number % 40),
            "excluded": {},
        },
        candidates="5f1c" * 16,
        chosen=endpoints[0],
        zone="onprem",
        denied=None,
        policy_version="0123456789ab",
        snapshot_version=1_900_000_000 + number // 100,
        quote={"usd_per_gpu_hour": 1.5, "source": "market", "fetched_at_s": 1.9e9},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as directory:
        trail = Path(directory) / "audit"
        table = Table("", "figure", title=f"audit trail, {count:,} rows")
        for name, figure in figures(trail, count):
            table.add_row(name, figure)
    out.print(table)


def figures(trail: Path, count: int) -> list[tuple[str, str]]:
    batch: list[DecisionRow] = []
    making_s = timed(lambda: batch.extend(row(n) for n in range(count)))
    bare: list[DecisionRow] = []
    baseline_s = timed(lambda: [bare.append(r) for r in batch])
    log = AuditLog(trail, "gw", capacity=count)
    append_s = timed(lambda: [log.append(r) for r in batch])
    with log:
        writing_s = timed(lambda: wait_for(log, count))
    stored = files(trail / "gw")
    decoded = 0
    for path in stored:
        with opened(path) as file:
            decoded += sum(map(len, file))
    packed = sum(path.stat().st_size for path in stored)
    verify_s = timed(lambda: verify(trail))
    read_s = timed(lambda: [None for _ in rows(trail)])
    find_s = timed(lambda: find(trail, f"{count - 1:032x}"))
    return [
        ("making a row, its facts included", f"{making_s / count * 1e6:.2f} µs a row"),
        ("a list's append", f"{baseline_s / count * 1e6:.2f} µs a row"),
        ("append", f"{append_s / count * 1e6:.2f} µs a row"),
        ("seal, write, compress", f"{count / writing_s:,.0f} rows/s"),
        ("row, plain", f"{decoded / count:.0f} bytes"),
        ("on disk", f"{packed / count:.0f} bytes a row in {len(stored)} files"),
        ("verify", f"{decoded / verify_s / 1e6:.0f} MB/s, {count / verify_s:,.0f} rows/s"),
        ("rows", f"{count / read_s:,.0f} rows/s"),
        ("find", f"{count / find_s:,.0f} rows/s"),
    ]


def timed(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


def wait_for(log: AuditLog, count: int) -> None:
    while log.head().seq <= count:
        time.sleep(0.005)


if __name__ == "__main__":
    main()
