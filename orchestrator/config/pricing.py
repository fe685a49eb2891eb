"""Checks of prices and their feeds.

Assumes that every name is defined and defined once.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from orchestrator.config.access import is_loopback
from orchestrator.config.spec import (
    Configuration,
    HttpSource,
    Price,
    PriceFeed,
    PrometheusSource,
    Unit,
)

Place = tuple[str | int, ...]
Finding = tuple[Place, str]

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""Stands in the value of a header for an environment variable."""
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
SECRET = re.compile(r"authorization|cookie|token|secret|key", re.IGNORECASE)
"""Is in the names of headers that carry secrets."""


def pricing(c: Configuration) -> Iterator[Finding]:
    """Each with its place in the document and its mend."""
    feeds = {feed.name: feed for feed in c.price_feeds}
    for number, pool in enumerate(c.pools):
        yield from _price(("pools", number, "price"), pool.price, feeds)
    for number, feed in enumerate(c.price_feeds):
        yield from _feed(("price_feeds", number), feed)


def used_feeds(price: Price) -> Iterator[tuple[Place, str]]:
    """The feeds that it names, each with its place below the price."""
    for place, _, name in _uses(price):
        yield place, name


def _uses(price: Price) -> Iterator[tuple[Place, Unit, str]]:
    if price.feed is not None:
        yield ("feed",), "usd_per_gpu_hour", price.feed
    onprem = price.onprem
    if onprem is None:
        return
    if onprem.draw_feed is not None:
        yield ("onprem", "draw_feed"), "w", onprem.draw_feed
    if onprem.tariff.feed is not None:
        yield ("onprem", "tariff", "feed"), "usd_per_kwh", onprem.tariff.feed
    if onprem.carbon is not None and onprem.carbon.feed is not None:
        yield ("onprem", "carbon", "feed"), "g_per_kwh", onprem.carbon.feed


def _price(at: Place, price: Price, feeds: dict[str, PriceFeed]) -> Iterator[Finding]:
    if len(price.model_dump(exclude_none=True)) != 1:
        yield at, "give one of fixed_usd_per_gpu_hour, feed, onprem and tokens"
    for place, unit, name in _uses(price):
        if feeds[name].unit != unit:
            message = f"feed '{name}' is in {feeds[name].unit}; name one in {unit}"
            yield (*at, *place), message
    if price.onprem is None:
        return
    tariff, carbon = price.onprem.tariff, price.onprem.carbon
    if len(tariff.model_dump(exclude_none=True, exclude={"timezone"})) != 1:
        yield (
            (*at, "onprem", "tariff"),
            "give one of usd_per_kwh, usd_per_kwh_by_hour and feed",
        )
    if carbon is not None and (carbon.g_per_kwh is None) == (carbon.feed is None):
        yield (*at, "onprem", "carbon"), "give one of g_per_kwh and feed"


def _feed(at: Place, feed: PriceFeed) -> Iterator[Finding]:
    if sum(source is not None for source in (feed.file, feed.http, feed.prometheus)) != 1:
        yield at, "give one of file, http and prometheus"
    if feed.time_scale != 1 and feed.file is None:
        yield (*at, "time_scale"), "only a file is replayed; leave it out"
    if feed.max_age_s < feed.refresh_s:
        yield (
            (*at, "max_age_s"),
            f"shorter than refresh_s, {feed.refresh_s:g}: quotes would be stale before they are "
            "renewed; raise it",
        )
    lowest, highest = feed.plausible.lowest, feed.plausible.highest
    if lowest is not None and highest is not None and lowest >= highest:
        yield (*at, "plausible"), f"nothing lies between {lowest:g} and {highest:g}; swap them"
    prometheus = feed.prometheus
    if prometheus is not None:
        yield from _headers((*at, "prometheus"), prometheus)
        if feed.unit != "usd_per_gpu_hour" and "query" not in prometheus.model_fields_set:
            yield (*at, "prometheus"), f"the default query is not in {feed.unit}; give a query"
    if feed.http is not None:
        yield from _headers((*at, "http"), feed.http)


def _headers(at: Place, source: HttpSource | PrometheusSource) -> Iterator[Finding]:
    url = urlsplit(source.url)
    seen: set[str] = set()
    for name, value in source.headers.items():
        place = (*at, "headers", name)
        if not HEADER.fullmatch(name) or not re.fullmatch(r"[ -~]*", value):
            yield place, "not a header of HTTP; write it in ASCII"
        if name.lower() in seen:
            yield place, f"'{name}' stands here twice, in other letters; keep one"
        seen.add(name.lower())
        if SECRET.search(name) and not VARIABLE.search(value):
            yield place, "a secret is not written here; write ${NAME} of an environment variable"
        if VARIABLE.search(value) and url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield (
                (*at, "url"),
                f"whoever is on the way could read header '{name}'; write https://",
            )
