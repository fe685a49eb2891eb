"""A simulation as one HTML page: no scripts, nothing from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

from orchestrator.simulate import summary
from orchestrator.simulate.figures import comparison, detail
from orchestrator.simulate.report import Simulated, policies_of
from orchestrator.simulate.summary import Summary

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; }
h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.7em; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.bad { color: #b00020; font-weight: bold; }
svg { width: 100%; height: auto; }
@media print { body { max-width: none; margin: 0; } tr { break-inside: avoid; } }
"""


def page(runs: Sequence[Simulated], report: dict[str, Any]) -> str:
    """`report`: of these runs."""
    policies = policies_of(report)
    first = policies[0]
    names = ", ".join(of["policy"] for of in policies)
    title = (
        f"{names}: {first['trace']}, configuration {first['config_version']}, seed {first['seed']}"
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        _paragraph(
            f"{first['requests']:,} requests from {first['start']} on, over "
            f"{first['duration_s']:,.0f} s, looked at every {first['tick_s']:g} s. On-prem is "
            "every pool to which no workload may burst."
        ),
        _table(summary.policies(policies, report.get("bound"))),
        *(
            _paragraph(warning, "bad")
            for warning in summary.warnings(policies, report.get("bound"))
        ),
    ]
    if len(runs) == 1:
        parts += [
            detail(runs[0]),
            "<h2>Workloads</h2>",
            _table(summary.workloads(first)),
            "<h2>Pools</h2>",
            _table(summary.pools(first)),
        ]
    else:
        parts += [
            comparison(runs),
            "<h2>Within objectives, by workload</h2>",
            _table(summary.attainment(policies)),
        ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _table(of: Summary) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in of.head)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in of.rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
