"""Spans of time, as people write them: 90s, 30m, 2h, 1d."""

import re
import time
from typing import Annotated

import typer

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) == 0:
        raise typer.BadParameter(f"write '{text}' as 90s, 30m, 2h or 1d")
    return float(match[1]) * UNITS_S[match[2]]


def duration(span_s: float) -> str:
    """The same, to read."""
    unit = max((u for u in UNITS_S if span_s >= UNITS_S[u]), key=UNITS_S.__getitem__, default="s")
    return f"{span_s / UNITS_S[unit]:g}{unit}"


def until(moment_s: float | None) -> str:
    """Such as ` until 14:05:00`, in local time; empty where there is no end."""
    return "" if moment_s is None else time.strftime(" until %X", time.localtime(moment_s))


For = Annotated[
    float | None,
    typer.Option(
        "--for",
        parser=seconds,
        metavar="TIME",
        help="It ends by itself after 90s, 30m, 2h or 1d. Default: until somebody ends it.",
    ),
]
