"""Clients of a production service, from ServeGen's figures by client and window (Xiang et al.,
2025)."""

import csv
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.traces.requests import TraceError, open_text
from orchestrator.traces.synth import WINDOW_S, Client, Family, Quantiles, Window

RATES = ("model", "client", "window_start_s", "rate_rps", "iat_cv", "iat_dist")
_NAMED = {0.01: "p1", 0.05: "p5", 0.1: "p10", 0.25: "p25", 0.5: "p50", 0.75: "p75"}
_NAMED |= {0.9: "p90", 0.95: "p95", 0.99: "p99", 1.0: "max"}
LEVELS = (0.0, *_NAMED)
"""What is shorter than the 1st percentile counts as long as it."""


@dataclass(frozen=True, slots=True)
class _Rate:
    rate_rps: float
    cv: float
    family: Family


def clients(rates: Path, tokens: Path, model: str) -> list[Client]:
    """The clients of a model. Lengths hold until the client's next ones, and its first from the
    start; a client without any takes those of the busiest that has some. Raises TraceError."""
    by_client = _rates(rates, model)
    lengths = _lengths(tokens, model)
    known = [c for c in by_client if c in lengths]
    if not known:
        raise TraceError(f"{tokens}:1: no lengths for the clients of {model}; give the file of it")
    busiest = max(known, key=lambda c: sum(r.rate_rps for r in by_client[c].values()))
    return [
        Client(dict(_windows(of_client, lengths.get(name, lengths[busiest]))))
        for name, of_client in by_client.items()
    ]


def _windows(
    rates: dict[int, _Rate], lengths: dict[int, Quantiles]
) -> Iterator[tuple[int, Window]]:
    starts = sorted(lengths)
    current = 0
    for number in sorted(rates):
        while current + 1 < len(starts) and starts[current + 1] <= number:
            current += 1
        rate = rates[number]
        yield number, Window(rate.rate_rps, rate.family, rate.cv, lengths[starts[current]])


def _rates(path: Path, model: str) -> dict[str, dict[int, _Rate]]:
    found: dict[str, dict[int, _Rate]] = defaultdict(dict)
    for line, row in _rows(path, model, RATES):
        try:
            number = _number(row)
            rate_rps, cv = float(row["rate_rps"]), float(row["iat_cv"])
        except ValueError:
            raise _no_number(path, line) from None
        family = row["iat_dist"]
        if family not in ("Gamma", "Weibull"):
            raise TraceError(f"{path}:{line}: iat_dist '{family}'; write Gamma or Weibull")
        if not (0 <= rate_rps < float("inf") and 0 < cv < float("inf")):
            raise TraceError(f"{path}:{line}: rate_rps must be 0 or more, and iat_cv more than 0")
        found[row["client"]][number] = _Rate(rate_rps, cv, cast(Family, family))
    return found


def _lengths(path: Path, model: str) -> dict[str, dict[int, Quantiles]]:
    found: dict[str, dict[int, Quantiles]] = defaultdict(dict)
    sides = [[f"{side}_{name}" for name in _NAMED.values()] for side in ("prompt", "output")]
    columns = ("model", "client", "window_start_s", *sides[0], *sides[1])
    for line, row in _rows(path, model, columns):
        try:
            number = _number(row)
            prompt, output = (tuple(float(row[c]) for c in side) for side in sides)
        except ValueError:
            raise _no_number(path, line) from None
        for values in (prompt, output):
            if not 0 <= values[0] <= values[-1] < float("inf") or list(values) != sorted(values):
                raise TraceError(f"{path}:{line}: quantiles must ascend, from 0 up")
        found[row["client"]][number] = Quantiles(LEVELS, (prompt[0], *prompt), (output[0], *output))
    return found


def _number(row: dict[str, str]) -> int:
    """Of the window. Raises ValueError."""
    start_s = float(row["window_start_s"])
    if not 0 <= start_s < float("inf") or start_s % WINDOW_S:
        raise ValueError
    return int(start_s // WINDOW_S)


def _no_number(path: Path, line: int) -> TraceError:
    return TraceError(
        f"{path}:{line}: write numbers, and window_start_s as a multiple of {WINDOW_S:g}"
    )


def _rows(path: Path, model: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Those of the model."""
    models = set()
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file, restval="")
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise TraceError(f"{path}:1: no column {', '.join(missing)}")
            for row in reader:
                models.add(row["model"])
                if row["model"] == model:
                    yield reader.line_num, row
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path}:1: cannot be read: {error}; give a CSV or CSV.gz file") from None
    if model not in models:
        known = ", ".join(sorted(models)) or "none"
        raise TraceError(f"{path}:1: no model '{model}'; it has {known}")
