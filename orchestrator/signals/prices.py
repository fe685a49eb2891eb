"""What feeds say: figures, and files of them."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.spec import PriceFeed, Unit

MAX_FILE_BYTES = 16 * 1024 * 1024

WORDS: Mapping[Unit, str] = {
    "usd_per_gpu_hour": "USD per GPU-hour",
    "usd_per_kwh": "USD per kWh",
    "g_per_kwh": "g per kWh",
    "w": "W",
}


class FeedError(Exception):
    """The feed cannot be read. The message says why; of a file also the line and the mend."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a feed said, which need not be true."""

    figures: float | Mapping[str, float]
    """One for every pool, or by pool."""
    made_at_s: float | None = None
    """By the feed's own word; None: it does not say."""

    def of(self, pool: str) -> float | None:
        """None where it has nothing for the pool."""
        return self.figures.get(pool) if isinstance(self.figures, Mapping) else self.figures


def read_feed(path: Path, unit: Unit = "usd_per_gpu_hour") -> list[tuple[float, float]]:
    """Rows of (time_s, figure) in order of time. Raises FeedError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FeedError(f"{path}: larger than {MAX_FILE_BYTES} bytes; leave old rows out")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FeedError(f"{path}: cannot be read: {error}") from None
    rows: list[tuple[float, float]] = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        where = f"{path}:{reader.line_num}"
        try:
            time_s, figure = float(row["time_s"]), float(row[unit])
        except (KeyError, TypeError, ValueError):
            raise FeedError(f"{where}: write two numbers: time_s,{unit}") from None
        if not (math.isfinite(time_s) and math.isfinite(figure)):
            raise FeedError(f"{where}: not a number to count with; write a finite one")
        if unit == "usd_per_gpu_hour" and figure <= 0:
            raise FeedError(f"{where}: a price must be a number above zero")
        if rows and time_s <= rows[-1][0]:
            raise FeedError(f"{where}: times must rise from row to row")
        rows.append((time_s, figure))
    if not rows:
        raise FeedError(f"{path}:1: no rows; write a header and at least one row")
    return rows


class FileFeed:
    """Replays a file in accelerated time. The file is read again when it changes."""

    def __init__(self, spec: PriceFeed, started_s: float) -> None:
        assert spec.file is not None
        self._spec = spec
        self._started_s = started_s
        self._path = Path(spec.file)
        self._mtime_ns = -1
        self._rows: list[tuple[float, float]] = []

    def read(self, now_s: float) -> Said:
        """What is in force. Raises FeedError."""
        try:
            mtime_ns = self._path.stat().st_mtime_ns
        except OSError as error:
            raise FeedError(f"{self._path}: cannot be read: {error}") from None
        if mtime_ns != self._mtime_ns:
            self._rows = read_feed(self._path, self._spec.unit)
            self._mtime_ns = mtime_ns
        feed_s = self._rows[0][0] + (now_s - self._started_s) * self._spec.time_scale
        past = [figure for time_s, figure in self._rows if time_s <= feed_s]
        return Said(past[-1] if past else self._rows[0][1])
