"""What of a feed's figures is believed. Pure: the clock is an argument.

A figure that cannot be is refused. A price far from the last good one is refused until fetches in a
row confirm it. As long as a feed is not believed its last good figure ages, and is good for nothing
new: it is valid no longer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.config.spec import PriceFeed, Unit
from orchestrator.signals.prices import WORDS

AHEAD_S = 60
"""By which a feed's clock may be before ours."""

POSSIBLE: Mapping[Unit, tuple[float, float]] = {
    "usd_per_gpu_hour": (0, 1000),
    "usd_per_kwh": (-20, 20),
    "g_per_kwh": (0, 5000),
    "w": (0, 5000),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One that was believed. Times are seconds since the epoch."""

    value: float
    fetched_at_s: float
    valid_to_s: float


@dataclass(frozen=True, slots=True)
class Trust:
    """What is known of one figure of a feed."""

    good: Figure | None = None
    """The last one that was believed."""
    refused: str | None = None
    """Why the newest was not believed."""
    claimed: float | None = None
    """The first of fetches in a row that agree on a price outside the band."""
    claims: int = 0


def judge(
    feed: PriceFeed, trust: Trust, said: float | None, made_at_s: float | None, now_s: float
) -> Trust:
    """After a fetch at `now_s`. `said` is None where the feed has nothing to say."""
    absurd = _absurd(feed, said, made_at_s, now_s)
    if said is None or absurd is not None:
        return _doubted(trust, absurd)
    good = trust.good
    if good is None or _is_near(feed, said, good.value):
        return _believed(feed, said, made_at_s, now_s)
    goes_on = trust.claimed is not None and _is_near(feed, said, trust.claimed)
    claims = trust.claims + 1 if goes_on else 1
    if claims >= feed.plausible.confirmations:
        return _believed(feed, said, made_at_s, now_s)
    factor = feed.plausible.factor
    why = (
        f"{said:g} {WORDS[feed.unit]} is outside {good.value / factor:.4g} to "
        f"{good.value * factor:.4g}, the band around the last good price, {good.value:g}; so say "
        f"{claims} of {feed.plausible.confirmations} fetches that would confirm it"
    )
    claimed = trust.claimed if goes_on else said
    return replace(_doubted(trust, why), claimed=claimed, claims=claims)


def unreachable(trust: Trust) -> Trust:
    """After a fetch that failed: the last good figure goes on until it is too old."""
    return replace(trust, claimed=None, claims=0)


def _absurd(
    feed: PriceFeed, said: float | None, made_at_s: float | None, now_s: float
) -> str | None:
    """Why no fetch can confirm it."""
    if said is None:
        return "it has no figure for the pool"
    word = WORDS[feed.unit]
    if not math.isfinite(said):
        return f"{said:g} {word} is not a number to count with"
    lowest, highest = POSSIBLE[feed.unit]
    if not lowest <= said <= highest or (feed.unit == "usd_per_gpu_hour" and said <= 0):
        return f"{said:g} {word} cannot be"
    least, most = feed.plausible.lowest, feed.plausible.highest
    if least is not None and said < least:
        return f"{said:g} {word} is below `plausible.lowest`, {least:g}"
    if most is not None and said > most:
        return f"{said:g} {word} is above `plausible.highest`, {most:g}"
    if made_at_s is None:
        return None
    # What is not a number compares as false.
    if not made_at_s <= now_s + AHEAD_S:
        return f"{said:g} {word} was made {made_at_s - now_s:.0f} s from now, by its own word"
    if not made_at_s >= now_s - feed.max_age_s:
        return f"{said:g} {word} was made {now_s - made_at_s:.0f} s ago, by its own word"
    return None


def _is_near(feed: PriceFeed, value: float, other: float) -> bool:
    """Figures that may be negative, or nothing, have no band."""
    if feed.unit != "usd_per_gpu_hour":
        return True
    factor = feed.plausible.factor
    return value <= other * factor and other <= value * factor


def _believed(feed: PriceFeed, said: float, made_at_s: float | None, now_s: float) -> Trust:
    since_s = now_s if made_at_s is None else min(made_at_s, now_s)
    return Trust(Figure(said, now_s, since_s + feed.max_age_s))


def _doubted(trust: Trust, why: str | None) -> Trust:
    good = trust.good
    if good is not None:
        good = replace(good, valid_to_s=min(good.valid_to_s, good.fetched_at_s))
    return Trust(good, why)
