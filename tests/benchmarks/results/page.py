"""The results as a table for the terminal and as one HTML page with plots."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich.table import Table

from orchestrator.simulate.page import STYLE
from tests.benchmarks.results.policies import PLANNER
from tests.benchmarks.results.row import FAIR

Row = Mapping[str, Any]
COLOURS = matplotlib.color_sequences["tab10"]
BOUNDS = {"bound": "bound", "fair_bound": f"bound at {FAIR:.0%}"}
"""The least that anybody can pay: for what the planner serves in time, and for nearly all."""
HEAD = (
    *("policy", "USD", "cloud", "in SLO", "TTFT p95 s", "ITL p95 s", "rev. / h", "GPU hours"),
    *("idle", "kept on-prem", "violations"),
)


def table(rows: Sequence[Row], verdicts: bool) -> Table:
    """A line for each row; in each policy's column its cost and what it serves in time."""
    names = _policies(rows)
    ends = ("planner / bound", "planner / cheapest equal", "rev. / h") if verdicts else ()
    shown = Table(title="USD, share within both objectives")
    for head in ("row", *names, *BOUNDS.values(), *ends):
        shown.add_column(head, no_wrap=True)
    for row in rows:
        cells = [_cell(row["policies"].get(name)) for name in names]
        verdict = [_ratio(row), _equal(row), f"{row['verdict']['reversals_per_hour']:.1f}"]
        cells += [_cell(row[name]) for name in BOUNDS]
        shown.add_row(row["row"], *cells, *(verdict if verdicts else []))
    return shown


def page(report: Mapping[str, Any]) -> str:
    rows: Sequence[Row] = report["rows"]
    title = "What a policy costs"
    parts = [f"<h1>{title}</h1>", _summary(rows), _figure(rows)] if rows else [f"<h1>{title}</h1>"]
    for row in rows:
        parts += [f"<h2>{escape(row['row'])}</h2>", *_told(row)]
    if report["skipped"]:
        skipped = (f"<li>{escape(name)}: {escape(why)}</li>" for name, why in report["skipped"])
        parts.append(f"<h2>Left out</h2><ul>{''.join(skipped)}</ul>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _told(row: Row) -> list[str]:
    verdict = row["verdict"]
    about = (
        f"{row['trace']}. {row['requests']:,} requests in {row['duration_s'] / 3600:.1f} h, "
        f"{row['owned_replicas']} owned replicas, seed {row['seed']}. Prices: {row['market']}."
    )
    kept = [_line(name, of) for name, of in row["policies"].items()]
    kept += [_bound(name, row[key]) for key, name in BOUNDS.items()]
    words = [f"The planner costs {_ratio(row)} of the bound and {_equal(row)}."]
    if verdict["residency_violations"]:
        words.append(f"{verdict['residency_violations']} requests went where they may not.")
    return [f"<p>{escape(about)}</p>", _html(HEAD, kept), f"<p>{escape(' '.join(words))}</p>"]


def _line(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        _usd(of["cost_usd"]["total"]),
        _usd(of["cost_usd"]["cloud"]),
        f"{of['slo_attainment']:.2%}",
        *("" if of[key] is None else f"{of[key]:.3g}" for key in ("ttft_p95_s", "itl_p95_s")),
        f"{of['reversals_per_hour']:.1f}",
        f"{of['gpu_hours']:.1f}",
        f"{of['idle_gpu_hours']:.1f}",
        f"{1 - of['cloud_fraction']:.1%}",
        str(of["residency_violations"]),
    )


def _bound(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    usd = of["cost_usd"]
    told = (_usd(usd["total"]), _usd(usd["cloud"]), f"{of['slo_attainment']:.2%}")
    return (name, *told, "", "", "", f"{of['gpu_hours']:.1f}", "", "", "")


def _summary(rows: Sequence[Row]) -> str:
    names = _policies(rows)
    head = ("row", *names, *BOUNDS.values(), "planner / bound", "planner / cheapest equal")
    lines = [
        (
            row["row"],
            *(_cell(row["policies"].get(name)) for name in names),
            *(_cell(row[name]) for name in BOUNDS),
            _ratio(row),
            _equal(row),
        )
        for row in rows
    ]
    return _html(head, lines)


def _figure(rows: Sequence[Row]) -> str:
    """Cost over the bound beside what is served in time: up and left is better."""
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure((4 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    names = _policies(rows)
    for axis, row in zip(axes, rows, strict=False):
        least_usd = row["bound"]["cost_usd"]["total"]
        for number, name in enumerate(names):
            of = row["policies"].get(name)
            if of is not None:
                axis.plot(
                    of["cost_usd"]["total"] / least_usd,
                    100 * of["slo_attainment"],
                    "*" if name == PLANNER else "o",
                    markersize=12 if name == PLANNER else 6,
                    color=COLOURS[number % len(COLOURS)],
                    label=name,
                )
        axis.axvline(1, color="black", linestyle="--", linewidth=0.8)
        axis.set_title(row["row"], fontsize="small")
        axis.set_xlabel("cost / bound")
        axis.set_ylabel("% within objectives")
        axis.grid(alpha=0.3)
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize="x-small")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "results"}):
        figure.savefig(
            buffer,
            format="svg",
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _policies(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["policies"]))


def _cell(of: Mapping[str, Any] | None) -> str:
    return "" if of is None else f"{_usd(of['cost_usd']['total'])}, {of['slo_attainment']:.1%}"


def _ratio(row: Row) -> str:
    return f"{row['verdict']['planner_over_bound']:.2f}"


def _equal(row: Row) -> str:
    verdict = row["verdict"]
    if verdict["cheapest_equal"] is None:
        return "no other serves as many"
    return f"{verdict['planner_over_cheapest_equal']:.2f} of {verdict['cheapest_equal']}"


def _usd(usd: float) -> str:
    return f"{usd:.2f}" if usd < 1000 else f"{usd:,.0f}"


def _html(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table>"
