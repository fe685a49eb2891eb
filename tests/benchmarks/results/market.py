"""What the pools cost, and how much spot capacity there was, from public records."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from orchestrator.config.spec import OnPremPrice
from orchestrator.signals.prices_onprem import onprem_cost
from orchestrator.simulate.prices import Series
from orchestrator.traces.requests import open_text
from orchestrator.traces.synth import DAY_S

OWNED, SPOT, ON_DEMAND = "reserved", "spot", "on-demand"
"""Types of capacity."""
ENERGY, SUPPLY = "energy/grid_hourly.csv.gz", "spot/skypilot_spot_availability.csv.gz"
GCP, MARKETPLACE = "prices/gcp_gpu_price_changes.csv.gz", "prices/gpu_market_stats.csv.gz"
GCP_GPUS = 8
START = datetime(2023, 11, 16, 18, tzinfo=UTC)
"""Of every row: Azure's traces begin in this hour."""
SUPPLY_FROM_S = 1.5 * DAY_S
SUPPLY_TRACE = "aws-2023-02-15-1node"


@dataclass(frozen=True)
class Market:
    name: str
    file: str
    about: str
    rented: Callable[[Path, float], Mapping[str, Series]]
    """From the file and the seconds of the row: by type of capacity, USD per GPU-hour."""


def energy(path: Path, price: OnPremPrice, duration_s: float) -> Series:
    """What an owned GPU-hour costs by the day-ahead price of DE-LU. A row shorter than a day has
    a whole day of it."""
    usd_per_kwh = [
        (datetime.strptime(row["hour_utc"], "%Y-%m-%d %H:%MZ"), row["price_usd_per_mwh"])
        for row in _rows(path)
        if row["region"] == "DE-LU" and row["price_usd_per_mwh"]
    ]
    hours = [
        ((hour.replace(tzinfo=UTC) - START).total_seconds(), float(usd) / 1000)
        for hour, usd in usd_per_kwh
    ]
    usd = [(at_s, onprem_cost(price, kwh, None, 0).total) for at_s, kwh in hours if at_s >= 0]
    return _played(usd, max(1.0, DAY_S / duration_s))


def supply(path: Path) -> Series:
    """Of a zone each: how many nodes could be had in the six zones together, as they were."""
    changes: dict[float, int] = {}
    for row in _rows(path):
        if row["trace"] == SUPPLY_TRACE and row["kind"] == "availability":
            begin_s = float(row["t_start_s"])
            nodes = min(int(row["nodes_available"]), 1)
            for at_s, by in ((begin_s, nodes), (begin_s + float(row["duration_s"]), -nodes)):
                changes[at_s] = changes.get(at_s, 0) + by
    nodes, levels = 0, []
    for at_s in sorted(changes):
        nodes += changes[at_s]
        levels.append((at_s - SUPPLY_FROM_S, float(nodes)))
    return _from_zero(levels)


def _gcp(path: Path, duration_s: float) -> Mapping[str, Series]:
    """All changes since there are spot prices, in the time of the row."""
    found: dict[str, list[tuple[float, float]]] = {SPOT: [], ON_DEMAND: []}
    for row in _rows(path):
        if (row["region"], row["instance_type"]) == ("europe-west4", "a3-highgpu-8g"):
            at_s = datetime.fromisoformat(row["as_of"]).replace(tzinfo=UTC).timestamp()
            if row["spot_price_usd_h"]:
                found[SPOT].append((at_s, float(row["spot_price_usd_h"]) / GCP_GPUS))
                found[ON_DEMAND].append((at_s, float(row["price_usd_h"]) / GCP_GPUS))
    first_s = found[SPOT][0][0]
    days_s = datetime(2025, 12, 31, tzinfo=UTC).timestamp() - first_s
    return {
        kind: _played([(at_s - first_s, usd) for at_s, usd in of], days_s / duration_s)
        for kind, of in found.items()
    }


def _marketplace(path: Path, duration_s: float) -> Mapping[str, Series]:
    """The cheapest offer for spot, the median for on-demand. A row shorter than a day has a whole
    day of it."""
    found: dict[str, list[tuple[float, float]]] = {SPOT: [], ON_DEMAND: []}
    for row in _rows(path):
        if (row["gpu"], row["socket"]) == ("H100", "SXM5"):
            at_s = datetime.fromisoformat(row["as_of"]).timestamp()
            found[SPOT].append((at_s, float(row["price_min"])))
            found[ON_DEMAND].append((at_s, float(row["price_p50"])))
    first_s = found[SPOT][0][0]
    return {
        kind: _played([(at_s - first_s, usd) for at_s, usd in of], max(1.0, DAY_S / duration_s))
        for kind, of in found.items()
    }


MARKETS = (
    Market(
        "gcp",
        GCP,
        "GCP, a3-highgpu-8g in europe-west4: every change from 2024-05 to 2025-12, in the time of "
        "the row",
        _gcp,
    ),
    Market(
        "marketplace",
        MARKETPLACE,
        "the marketplace of 2025, H100 SXM5: cheapest offer as spot, median as on-demand; from its "
        "first day on, and that day whole in a shorter row",
        _marketplace,
    ),
)


def _played(changes: list[tuple[float, float]], speed: float) -> Series:
    return _from_zero([(at_s / speed, value) for at_s, value in sorted(changes)])


def _from_zero(changes: list[tuple[float, float]]) -> Series:
    """Without what was over before the beginning, and what changes nothing."""
    kept = [change for change, after in pairwise([*changes, (math.inf, 0.0)]) if after[0] > 0]
    told = [kept[0], *(after for before, after in pairwise(kept) if after[1] != before[1])]
    return Series([max(at_s, 0.0) for at_s, _ in told], [value for _, value in told])


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with open_text(path) as file:
        yield from csv.DictReader(file)
