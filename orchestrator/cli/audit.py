"""`audit`: what was decided, and that the record of it is whole."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from orchestrator.cli.app import Json, app, err, out, print_json, refuse
from orchestrator.cli.progress import progress
from orchestrator.config.data_class import DataClass
from orchestrator.config.load import state_directory
from orchestrator.ledger.audit import DecisionRow
from orchestrator.ledger.audit_files import files, gateways
from orchestrator.ledger.audit_read import AuditError, rows
from orchestrator.ledger.audit_summary import Summary
from orchestrator.ledger.audit_verify import Problem, TrailReport, inspect

audit = typer.Typer(no_args_is_help=True, help="The record of every decision: verify it, ask it.")
app.add_typer(audit, name="audit")


@audit.command()
def verify(as_json: Json = False) -> None:
    """Check that no row was altered, removed or cut off.

    Exit code 1 when one was. Warnings tell what a crash or a full disk left behind.
    """
    report = _verified(_trail())
    if as_json:
        chains = [asdict(c) | {"problems": len(c.problems)} for c in report.chains]
        print_json(
            {"whole": report.is_whole, "chains": chains, "problems": _as_json(report.problems)}
        )
    else:
        _print_chains(report)
        _print_problems(report)
    if not report.is_whole:
        raise typer.Exit(1)


@audit.command()
def show(
    workload: Annotated[str, typer.Option(help="Whose decisions.")],
    since: Annotated[str, typer.Option("--from", help="A day, such as 2030-01-31, or a time.")],
    until: Annotated[str, typer.Option("--to", help="A day, to its end, or a time, before it.")],
    data_class: Annotated[str, typer.Option(help="Only this effective class.")] = "",
    with_rows: Annotated[bool, typer.Option("--rows", help="Each decision, too.")] = False,
    as_json: Json = False,
) -> None:
    """Where the requests of a workload went, by data class. Times are UTC unless they say.

    The trail is verified first: a broken one gives no answer. Exit code 1 then, and also when rows
    of that time were lost, for an answer that is not complete proves nothing.
    """
    try:
        period = _moment(since, is_end=False), _moment(until, is_end=True)
        only = DataClass.parse(data_class).label if data_class else None
    except (ValueError, OverflowError) as error:
        raise refuse(error, 2) from None
    if period[0] >= period[1]:
        raise refuse(f"--from {since} does not lie before --to {until}", 2)
    trail = _trail()
    report = _verified(trail)
    if not report.is_whole:
        if as_json:
            print_json({"verified": False, "problems": _as_json(report.problems)})
        else:
            _print_problems(report)
            err.print("no answer: a broken trail proves nothing")
        raise typer.Exit(1)
    summary = Summary(workload, period[0].timestamp(), period[1].timestamp(), only)
    found: list[DecisionRow] = []
    try:
        with progress("counting", sum(c.rows for c in report.chains)) as step:
            for number, row in enumerate(rows(trail), 1):
                if summary.takes(row) and with_rows and isinstance(row, DecisionRow):
                    found.append(row)
                if number % 10_000 == 0:
                    step(10_000)
    except AuditError as error:
        raise refuse(error) from None
    found.sort(key=lambda row: row.time_s)
    if as_json:
        answer = {
            "verified": True,
            "workload": workload,
            "from": period[0].isoformat(),
            "to": period[1].isoformat(),
            "by_data_class": summary.by_class,
            "lost_rows": summary.lost,
            "rows": found if with_rows else None,
        }
        print_json(answer)
    else:
        _print_problems(report)
        out.print(
            f"workload {workload} from {_shown(period[0])} to before {_shown(period[1])}, UTC"
        )
        _print_summary(summary)
        for row in found:
            _print_row(row)
    if summary.lost:
        raise typer.Exit(1)


def _trail() -> Path:
    trail = state_directory() / "audit"
    if not trail.is_dir():
        raise refuse(f"no audit trail at {trail}; set ORCHESTRATOR_STATE to where it lies", 2)
    return trail


def _verified(trail: Path) -> TrailReport:
    sizes: dict[Path, int] = {}
    for path in (path for g in gateways(trail) for path in files(trail / g)):
        with suppress(FileNotFoundError):  # compressed since it was listed
            sizes[path] = path.stat().st_size
    try:
        with progress("verifying", sum(sizes.values())) as step:
            return inspect(trail, lambda path: step(sizes.get(path, 0)))
    except OSError as error:
        raise refuse(f"{error.filename or trail}: {error.strerror}", 2) from None


def _moment(given: str, is_end: bool) -> datetime:
    """Raises ValueError. A day that ends a period belongs to it."""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise ValueError(f"'{given}' is no day or time; write it as 2030-01-31T12:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    is_day = len(given) <= len("2030-01-31")
    return moment + timedelta(days=1) if is_end and is_day else moment


def _shown(moment: datetime | float | None) -> str:
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _as_json(problems: list[Problem]) -> list[dict[str, Any]]:
    return [asdict(p) | {"path": str(p.path)} for p in problems]


def _print_chains(report: TrailReport) -> None:
    times = (Column(name, min_width=len("2030-01-31")) for name in ("from", "to"))
    table = Table("gateway", "rows", *times, "files", "problems", "anchored")
    for c in report.chains:
        numbers = (f"{n:,}" for n in (c.files, len(c.problems), c.anchored_seq))
        table.add_row(c.gateway_id, f"{c.rows:,}", _shown(c.first_s), _shown(c.last_s), *numbers)
    out.print(table)


def _print_problems(report: TrailReport) -> None:
    """And the verdict."""
    for problem in report.problems:
        style, name = ("yellow", "warning: ") if problem.is_warning else ("red", "")
        err.print(f"{name}{problem}", style=style, markup=False, highlight=False, soft_wrap=True)
    if report.is_whole:
        count = sum(c.rows for c in report.chains)
        out.print(f"[green]verified[/green]: {count:,} rows in {len(report.chains):,} chains")
    else:
        out.print("[red]broken[/red]")


def _print_summary(summary: Summary) -> None:
    if not summary.by_class:
        known = ", ".join(sorted(summary.workloads)) or "nobody"
        out.print(f"no such decision; in that time there were some for: {known}")
    # The class that matters most first; one that is unknown here must not be overlooked.
    ranks = {c.label: c for c in DataClass}
    classes = sorted(summary.by_class.items(), key=lambda i: -ranks.get(i[0], len(ranks)))
    zones = sorted({zone for _, p in classes for zone in p.sent})
    codes = sorted({code for _, p in classes for code in p.denied})
    if classes:
        table = Table("data class", "requests", *zones, *(f"denied: {c}" for c in codes))
        for label, p in classes:
            counts = [p.requests, *(p.sent[z] for z in zones), *(p.denied[c] for c in codes)]
            table.add_row(label, *(f"{n:,}" for n in counts))
        out.print(table)
    for label, p in classes:
        out.print(f"{label}: {p}", highlight=False, soft_wrap=True)
    if summary.lost:
        out.print(
            f"[red]not complete[/red]: {summary.lost:,} rows of that time could not be written"
        )


def _print_row(row: DecisionRow) -> None:
    where = f"{row.chosen} in {row.zone}" if row.denied is None else f"denied: {row.denied}"
    typer.echo(
        f"{_shown(row.time_s)} {row.request_id}/{row.attempt} key {row.key_id} {row.data_class} "
        f"{where}, policy {row.policy_version}, snapshot {row.snapshot_version}"
    )
