"""Tables of a report, in words, for the terminal and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "none"
SIDES = {"onprem": "on-prem", "cloud": "cloud"}


@dataclass(frozen=True)
class Summary:
    """A table; names stand in its first column."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def policies(
    reports: Sequence[dict[str, Any]],
    bound: dict[str, Any] | None = None,
    differing: str = "policy",
) -> Summary:
    """`differing`: what tells them apart."""
    head = (
        *(differing, "USD", "on-prem", "cloud", "in SLO", "shed", "kept on-prem", "bursts"),
        *("rev. / h", "GPU hours", "idle", "viola\N{SOFT HYPHEN}tions"),
    )
    rows = [_policy(of) for of in reports]
    return Summary(head, rows if bound is None else [*rows, _bound(bound)])


def workloads(report: dict[str, Any]) -> Summary:
    head = (
        *("workload", "arrived", "shed", "in SLO", "TTFT p50 s", "p95 s", "SLO s"),
        *("ITL p50 s", "p95 s", "SLO s", "zones"),
    )
    return Summary(head, [_workload(*item) for item in report["by_workload"].items()])


def pools(report: dict[str, Any]) -> Summary:
    head = ("pool", "side", "USD", "GPU hours", "idle", "unpriced")
    rows = [
        (
            name,
            SIDES[of["side"]],
            _amount(of["usd"]),
            *(_amount(of[f"{kind}gpu_hours"]) for kind in ("", "idle_", "unpriced_")),
        )
        for name, of in report["by_pool"].items()
    ]
    return Summary(head, rows)


def attainment(reports: Sequence[dict[str, Any]]) -> Summary:
    """By workload and policy."""
    rows = [
        (name, *(_attained(of["by_workload"][name]) for of in reports))
        for name in reports[0]["by_workload"]
    ]
    return Summary(("workload", *(of["policy"] for of in reports)), rows)


def changes(before: dict[str, Any], after: dict[str, Any]) -> Summary:
    """By workload, of two reports on one trace."""
    old, new = before["by_workload"], after["by_workload"]
    head = ("workload", "in SLO", "shed", "bursts", "zones")
    rows = [
        (
            name,
            *(
                _moved(*pair)
                for pair in zip(_short(old.get(name)), _short(new.get(name)), strict=True)
            ),
        )
        for name in dict.fromkeys([*old, *new])
    ]
    return Summary(head, rows)


def warnings(reports: Sequence[dict[str, Any]], bound: dict[str, Any] | None = None) -> list[str]:
    """What the figures leave out."""
    found = [] if bound is None else [_unattainable(bound)] * (not bound["is_attainable"])
    return found + [
        f"{of['policy']}: {of['unpriced_gpu_hours']:.2f} GPU-hours had no price by the hour and "
        "are in no cost; give one with --prices"
        for of in reports
        if of["unpriced_gpu_hours"]
    ]


def _policy(of: dict[str, Any]) -> tuple[str, ...]:
    return (
        of["policy"],
        *(_amount(of["cost_usd"][side]) for side in ("total", *SIDES)),
        f"{of['slo_attainment']:.2%}",
        str(of["shed"]),
        f"{1 - of['cloud_fraction']:.1%}",
        str(of["bursts"]),
        f"{of['reversals_per_hour']:.1f}",
        _amount(of["gpu_hours"]),
        _amount(of["idle_gpu_hours"]),
        str(of["residency_violations"]),
    )


def _bound(of: dict[str, Any]) -> tuple[str, ...]:
    """Of a schedule, which has no bursts and sheds nobody."""
    usd = (_amount(of["cost_usd"][side]) for side in ("total", *SIDES))
    return (
        "bound",
        *usd,
        f"{of['slo_attainment']:.2%}",
        *[""] * 4,
        _amount(of["gpu_hours"]),
        "",
        "",
    )


def _unattainable(bound: dict[str, Any]) -> str:
    short = ", ".join(
        f"{of['attained']:.2%} of {name}"
        for name, of in bound["by_workload"].items()
        if of["attained"] < of["asked"]
    )
    return f"bound: no policy serves more in time than {short}; it is for these"


def _workload(name: str, of: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(of["arrived"]),
        str(of["shed"]),
        _attained(of),
        *(_seconds(of[f"ttft_{which}_s"]) for which in ("p50", "p95", "slo")),
        *(_seconds(of[f"itl_{which}_s"]) for which in ("p50", "p95", "slo")),
        _zones(of),
    )


def _short(of: dict[str, Any] | None) -> tuple[str, ...]:
    """Of a workload; None: it is not there."""
    if of is None:
        return (ABSENT,) * 4
    return (_attained(of), str(of["shed"]), str(of["bursts"]), _zones(of))


def _moved(before: str, after: str) -> str:
    return after if before == after else f"{before} \N{RIGHTWARDS ARROW} {after}"


def _zones(of: dict[str, Any]) -> str:
    return ", ".join(f"{zone} {share:.0%}" for zone, share in of["share_by_zone"].items())


def _attained(of: dict[str, Any]) -> str:
    return f"{of['slo_attainment']:.2%}" if of["arrived"] else ""


def _amount(value: float) -> str:
    """Cents where there are few dollars."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
