"""Price feeds: quotes with source and age."""

import csv
import math
from pathlib import Path

from orchestrator.config.spec import PriceFeed


class FeedError(Exception):
    """The feed cannot be read; the message names file, line and the mend."""


def read_feed(path: Path) -> list[tuple[float, float]]:
    """Rows of (time_s, usd_per_gpu_hour) in order of time. Raises FeedError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FeedError(f"{path}: cannot be read: {error}") from None
    rows: list[tuple[float, float]] = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        where = f"{path}:{reader.line_num}"
        try:
            time_s, usd = float(row["time_s"]), float(row["usd_per_gpu_hour"])
        except (KeyError, TypeError, ValueError):
            raise FeedError(f"{where}: write two numbers: time_s,usd_per_gpu_hour") from None
        if not (math.isfinite(time_s) and math.isfinite(usd) and usd > 0):
            raise FeedError(f"{where}: a price must be a number above zero")
        if rows and time_s <= rows[-1][0]:
            raise FeedError(f"{where}: times must rise from row to row")
        rows.append((time_s, usd))
    if not rows:
        raise FeedError(f"{path}:1: no rows; write a header and at least one row")
    return rows


class FileFeed:
    """Replays a price file in accelerated time. The file is read again when it changes."""

    def __init__(self, spec: PriceFeed, started_s: float) -> None:
        self.spec = spec
        self.fetched_at_s = started_s
        self._started_s = started_s
        self._path = Path(spec.file)
        self._mtime_ns = -1
        self._rows: list[tuple[float, float]] = []

    def refresh(self, now_s: float) -> None:
        """Raises FeedError; the last good rows stay, and age."""
        try:
            mtime_ns = self._path.stat().st_mtime_ns
        except OSError as error:
            raise FeedError(f"{self._path}: cannot be read: {error}") from None
        if mtime_ns != self._mtime_ns:
            self._rows = read_feed(self._path)
            self._mtime_ns = mtime_ns
        self.fetched_at_s = now_s

    def usd_per_gpu_hour(self, now_s: float) -> float | None:
        """The price in force, None before the first good read."""
        if not self._rows:
            return None
        feed_s = self._rows[0][0] + (now_s - self._started_s) * self.spec.time_scale
        return [usd for time_s, usd in self._rows if time_s <= feed_s][-1]
