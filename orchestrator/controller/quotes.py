"""The price of every pool, with its source and age."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.config.pricing import used_feeds
from orchestrator.config.spec import Configuration, OnPremPrice, Pool
from orchestrator.policy.snapshot import Quote
from orchestrator.signals.prices_feed import Feed
from orchestrator.signals.prices_onprem import (
    OnPremCost,
    configured_usd_per_kwh,
    onprem_cost,
)
from orchestrator.signals.prices_trust import Figure

FOR_GOOD_S = float(2**53)


class Quotes:
    """What it gives is what is known at that moment: feeds are asked beside, and never waited
    for."""

    def __init__(
        self, configuration: Configuration, remembered: Mapping[str, Quote], now_s: float
    ) -> None:
        """`remembered` are the quotes that were published last, by pool."""
        self._feeds: dict[str, Feed] = {}
        self._remembered = dict(remembered)
        self.follow(configuration, now_s)
        for pool in configuration.pools:
            quote = self._remembered.get(pool.name)
            if pool.price.feed is not None and quote and quote.source == pool.price.feed:
                figure = Figure(quote.usd_per_gpu_hour, quote.fetched_at_s, quote.valid_to_s)
                self._feeds[pool.price.feed].remember(pool.name, figure)

    def follow(self, configuration: Configuration, now_s: float) -> None:
        """Other rules from here on. A feed that they change is believed anew: its owner has looked
        at it."""
        self._pools = {pool.name: pool for pool in configuration.pools}
        feeds = {}
        for spec in configuration.price_feeds:
            known = self._feeds.get(spec.name)
            feeds[spec.name] = known if known and known.spec == spec else Feed(spec, now_s)
        self._feeds = feeds
        users: dict[str, list[str]] = {name: [] for name in feeds}
        for pool in configuration.pools:
            for _, feed in used_feeds(pool.price):
                users[feed].append(pool.name)
        for name, pools in users.items():
            feeds[name].follow(pools)

    def refresh(self, now_s: float, files_only: bool = False) -> None:
        """Has the feeds asked that are due. Returns at once; needs a running event loop."""
        for feed in self._feeds.values():
            if feed.spec.file is not None or not files_only:
                feed.refresh(now_s)

    async def settled(self) -> None:
        """Until no feed is being asked."""
        await asyncio.gather(*(feed.settled() for feed in self._feeds.values()))

    def at(self, now_s: float) -> dict[str, Quote]:
        """By pool, the stale ones too. A pool whose price was never known, or that charges by the
        token, has none."""
        for name, pool in self._pools.items():
            quote = self._quote(pool, now_s)
            known = self._remembered.get(name)
            if quote is not None:
                self._remembered[name] = quote
            elif known is not None and known.source != _source(pool):
                del self._remembered[name]
        return {name: self._remembered[name] for name in self._pools if name in self._remembered}

    def trouble(self, pool: str) -> str | None:
        """Why the price is not what its feeds said last."""
        for _, name in used_feeds(self._pools[pool].price):
            trouble = self._feeds[name].trouble(pool)
            if trouble is not None:
                return f"price feed {name}: {trouble}"
        return None

    def troubles(self) -> dict[str, str]:
        """By pool, of those that have one."""
        found = {name: self.trouble(name) for name in self._pools}
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    def described(self, pool: str, now_s: float) -> dict[str, str | None]:
        """What people are told beside the quote: what its feeds do wrong, what it is made of."""
        price = self._pools[pool].price.onprem
        known = self._onprem(pool, price, now_s) if price is not None else None
        return {"trouble": self.trouble(pool), "made_of": known[0].sentence if known else None}

    def _quote(self, pool: Pool, now_s: float) -> Quote | None:
        price, figure = pool.price, None
        if price.fixed_usd_per_gpu_hour is not None:
            figure = Figure(price.fixed_usd_per_gpu_hour, now_s, FOR_GOOD_S)
        elif price.feed is not None:
            figure = self._feeds[price.feed].figure(pool.name)
        elif price.onprem is not None:
            known = self._onprem(pool.name, price.onprem, now_s)
            figure = known[1] if known else None
        if figure is None:
            return None
        return Quote(
            usd_per_gpu_hour=figure.value,
            source=_source(pool) or "",
            fetched_at_s=figure.fetched_at_s,
            valid_to_s=figure.valid_to_s,
        )

    def _onprem(
        self, pool: str, price: OnPremPrice, now_s: float
    ) -> tuple[OnPremCost, Figure] | None:
        """The price is as old as the oldest figure that it is made of. A draw that is not known
        now is the configured one."""
        in_force = Figure(0, now_s, FOR_GOOD_S)
        if price.tariff.feed is not None:
            tariff = self._feeds[price.tariff.feed].figure(pool)
        else:
            tariff = replace(in_force, value=configured_usd_per_kwh(price.tariff, now_s) or 0)
        carbon: Figure | None = in_force
        if price.carbon is not None and price.carbon.feed is not None:
            carbon = self._feeds[price.carbon.feed].figure(pool)
        elif price.carbon is not None:
            carbon = replace(in_force, value=price.carbon.g_per_kwh or 0)
        draw = self._feeds[price.draw_feed].figure(pool) if price.draw_feed else None
        if tariff is None or carbon is None:
            return None
        fresh = draw is not None and draw.valid_to_s >= now_s
        cost = onprem_cost(
            price, tariff.value, draw.value if draw and fresh else None, carbon.value
        )
        return cost, Figure(
            cost.total,
            min(tariff.fetched_at_s, carbon.fetched_at_s),
            min(tariff.valid_to_s, carbon.valid_to_s),
        )


async def offline(configuration: Configuration, now_s: float) -> Quotes:
    """What the configuration and its files say, without asking anybody over the network."""
    quotes = Quotes(configuration, {}, now_s)
    quotes.refresh(now_s, files_only=True)
    await quotes.settled()
    return quotes


def _source(pool: Pool) -> str | None:
    """None for a pool that charges by the token."""
    price = pool.price
    if price.fixed_usd_per_gpu_hour is not None:
        return "configuration"
    if price.onprem is not None:
        tariff = price.onprem.tariff.feed
        return f"on-prem, {tariff}" if tariff else "on-prem"
    return price.feed
