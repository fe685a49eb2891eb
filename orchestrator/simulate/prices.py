"""Prices and supply over the time of a simulation."""

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.spec import Configuration, OnPremPrice, Pool, PriceFeed
from orchestrator.policy.snapshot import Quote
from orchestrator.signals.prices import FeedError, read_feed
from orchestrator.signals.prices_onprem import configured_usd_per_kwh, onprem_cost

HOUR_S = 3600.0


class SeriesError(Exception):
    """Of a file: says path, line and the mend; or which pool has no price, and what to give."""


@dataclass(slots=True)
class Series:
    """What holds from each time to the next. Before the first: the first."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    """Not a number: none."""

    def at(self, now_s: float) -> float:
        return self.values[max(bisect_right(self.times_s, now_s) - 1, 0)]


def read_series(path: Path, column: str, pools: Mapping[str, Pool]) -> dict[str, Series]:
    """A CSV with the columns `time_s,pool` and this one, by pool. An empty field says that there is
    none from then on. Times are seconds from the beginning of the simulation. Raises SeriesError.
    """
    found: dict[str, Series] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: cannot be read: {error}") from None
    rows = csv.DictReader(lines)
    wanted = ("time_s", "pool", column)
    if not set(wanted) <= set(rows.fieldnames or ()):
        raise SeriesError(f"{path}:1: write a header with the columns {','.join(wanted)}")
    for row in rows:
        where = f"{path}:{rows.line_num}"
        pool, text = row["pool"], row[column]
        if pool not in pools:
            raise SeriesError(
                f"{where}: pool '{pool}' is not configured; one of {', '.join(pools)}"
            )
        try:
            time_s, value = float(row["time_s"]), float(text) if text else math.nan
        except (TypeError, ValueError):
            raise SeriesError(f"{where}: write numbers for time_s and {column}") from None
        if not math.isfinite(time_s) or math.isinf(value):
            raise SeriesError(f"{where}: not a number to count with; write a finite one")
        if value < 0 or (value == 0 and column.startswith("usd")):
            raise SeriesError(
                f"{where}: {column} must be above zero; leave it empty where there is none"
            )
        series = found.setdefault(pool, Series())
        if series.times_s and time_s <= series.times_s[-1]:
            raise SeriesError(f"{where}: times of pool '{pool}' must rise from row to row")
        series.times_s.append(time_s)
        series.values.append(value)
    return found


class Prices:
    """Of every pool at every time. What feeds over the network say is not known here: give it."""

    def __init__(
        self, configuration: Configuration, given: Mapping[str, Series], epoch_s: float
    ) -> None:
        """`given`: by pool, over what is configured. `epoch_s`: when the simulation begins, in
        seconds since the epoch. Raises SeriesError."""
        self._epoch_s = epoch_s
        self._feeds = {feed.name: feed for feed in configuration.price_feeds}
        self._files: dict[str, Series] = {}
        self._given = given
        self._onprem: dict[str, OnPremPrice] = {}
        self._series: dict[str, Series] = {}
        self._quotes: dict[str, tuple[float, Quote]] = {}
        for pool in configuration.pools:
            self._take(pool)

    def usd_per_gpu_hour(self, pool: str, now_s: float) -> float:
        """Not a number where there is no price: nobody offers it, or it is paid by the token."""
        if pool in self._series:
            return self._series[pool].at(now_s)
        if pool in self._onprem:
            return self._onprem_usd(self._onprem[pool], now_s)
        return math.nan

    def quotes(self, now_s: float) -> dict[str, Quote]:
        """By pool, of those that have one. Made anew where a price changed."""
        found = {}
        for pool in [*self._series, *self._onprem]:
            usd = self.usd_per_gpu_hour(pool, now_s)
            if math.isnan(usd):
                continue
            known = self._quotes.get(pool)
            if known is None or known[0] != usd:
                quote = Quote(
                    usd_per_gpu_hour=usd, source="replay", fetched_at_s=now_s, valid_to_s=math.inf
                )
                known = self._quotes[pool] = (usd, quote)
            found[pool] = known[1]
        return found

    def _take(self, pool: Pool) -> None:
        price = pool.price
        if pool.name in self._given:
            self._series[pool.name] = self._given[pool.name]
        elif price.fixed_usd_per_gpu_hour is not None:
            self._series[pool.name] = Series([0.0], [price.fixed_usd_per_gpu_hour])
        elif price.feed is not None:
            self._series[pool.name] = self._file(self._feeds[price.feed], pool.name)
        elif price.onprem is not None:
            for feed in (
                price.onprem.tariff.feed,
                price.onprem.carbon and price.onprem.carbon.feed,
            ):
                if feed:
                    self._file(self._feeds[feed], pool.name)
            self._onprem[pool.name] = price.onprem

    def _file(self, feed: PriceFeed, pool: str) -> Series:
        if feed.file is None:
            raise SeriesError(
                f"pool '{pool}' gets its price from feed '{feed.name}' over the network: give its "
                "prices with --prices"
            )
        if feed.name not in self._files:
            try:
                rows = read_feed(Path(feed.file), feed.unit)
            except FeedError as error:
                raise SeriesError(str(error)) from None
            first_s = rows[0][0]
            times_s = [(time_s - first_s) / feed.time_scale for time_s, _ in rows]
            self._files[feed.name] = Series(times_s, [value for _, value in rows])
        return self._files[feed.name]

    def _onprem_usd(self, price: OnPremPrice, now_s: float) -> float:
        tariff, carbon = price.tariff, price.carbon
        if tariff.feed is not None:
            usd_per_kwh = self._files[tariff.feed].at(now_s)
        else:
            usd_per_kwh = configured_usd_per_kwh(tariff, self._epoch_s + now_s) or 0.0
        grams = 0.0
        if carbon is not None:
            grams = self._files[carbon.feed].at(now_s) if carbon.feed else carbon.g_per_kwh or 0.0
        return onprem_cost(price, usd_per_kwh, None, grams).total
