"""`prices`: what each pool costs, who says so, and whether that still counts."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.app import Json, app, configuration_error, err, out, print_json
from orchestrator.cli.options import AppliedConfig, applied_or_local
from orchestrator.cli.policy import live_state
from orchestrator.config.load import ConfigurationError, Loaded, load
from orchestrator.config.pricing import used_feeds
from orchestrator.controller.quotes import FOR_GOOD_S, offline


@app.command()
def prices(config: AppliedConfig = None, as_json: Json = False) -> None:
    """Each pool's price with its source and age, and why one is stale or refused.

    Asks the running controller. Without one, reads what the configuration and its files say; feeds
    that are asked over the network are not.
    """
    try:
        loaded = load(applied_or_local(config))
    except ConfigurationError as error:
        raise configuration_error(error, as_json) from None
    state = live_state(loaded)
    found = _offline(loaded) if state is None else _live(state)
    if as_json:
        print_json({"controller": state is not None, "prices": found})
        return
    if state is None:
        err.print("no controller answers; these are the prices of the configuration", style="dim")
    _show(found, time.time() if state is None else state["time_s"])


def _offline(loaded: Loaded) -> dict[str, dict[str, Any]]:
    now_s, configuration = time.time(), loaded.configuration
    quotes = asyncio.run(offline(configuration, now_s))
    known = quotes.at(now_s)
    online = {feed.name for feed in configuration.price_feeds if feed.file is None}
    found = {}
    for pool in configuration.pools:
        about = quotes.described(pool.name, now_s)
        asked = sorted({name for _, name in used_feeds(pool.price) if name in online})
        if asked and about["trouble"] is None:
            about["trouble"] = f"price feed {', '.join(asked)}: only the controller asks it"
        quote = known.get(pool.name)
        stale = {"stale": quote.valid_to_s < now_s} if quote else {}
        found[pool.name] = {"quote": quote.model_dump() | stale if quote else None, **about}
    return found


def _live(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"quote": p["quote"], **p["price"]} for name, p in state["pools"].items()}


def _show(found: dict[str, dict[str, Any]], now_s: float) -> None:
    table = Table("pool", "USD/GPU-hour", "source", "age", "valid to")
    for name, price in found.items():
        quote = price["quote"]
        if quote is None:
            table.add_row(name, "?", "", "", "")
            continue
        for_good = quote["valid_to_s"] >= FOR_GOOD_S
        table.add_row(
            name,
            f"{quote['usd_per_gpu_hour']:.3f}",
            quote["source"],
            f"{max(0, now_s - quote['fetched_at_s']):.0f} s",
            "for good" if for_good else _clock(quote["valid_to_s"]) + _stale(quote),
        )
    out.print(table)
    for name, price in found.items():
        for told in filter(None, (price["trouble"], price["made_of"])):
            out.print(f"{name}: {escape(told)}", highlight=False)


def _clock(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%m-%d %H:%M:%SZ")


def _stale(quote: dict[str, Any]) -> str:
    return ", stale" if quote["stale"] else ""
