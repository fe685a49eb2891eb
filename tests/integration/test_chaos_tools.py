"""What the run under faults does, against the code that it is meant to hurt."""

import asyncio
import time
from pathlib import Path

from orchestrator.config.load import load
from orchestrator.controller.events import EventKind, EventLog
from orchestrator.controller.quotes import Quotes
from tests.benchmarks.chaos.__main__ import configured, place
from tests.benchmarks.chaos.faults import events_after, fill, free, last_event
from tests.benchmarks.chaos.feed import FLICKER, HANG, LIES, PriceFeed
from tests.e2e.conftest import LOCAL


def test_a_full_disk_keeps_events_waiting_and_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def run() -> None:
        events = EventLog(path)

        async def record(what: str) -> None:
            events.record(EventKind.HOLD, "cloud", what, now_s=time.time())
            await events.close()

        await record("before")
        last = last_event(path)
        kept = fill(path)
        await record("meanwhile")
        assert events.failure
        assert last_event(kept) == last
        free(path, kept)
        await record("after")
        assert not events.failure
        assert [e["what"] for e in events_after(path, last)] == ["meanwhile", "after"]

    asyncio.run(run())


def test_the_feeds_truth_is_believed_and_none_of_its_lies(tmp_path: Path) -> None:
    async def run() -> None:
        feed = PriceFeed(LOCAL / "prices" / "market.csv", time.time())
        await feed.open()
        loaded = load(configured(tmp_path / "config", feed.port))
        cloud = place(loaded).cloud_pool
        (spec,) = loaded.configuration.price_feeds
        at_once = {"price_feeds": [spec.model_copy(update={"refresh_s": 1e-6})]}
        quotes = Quotes(loaded.configuration.model_copy(update=at_once), {}, time.time())

        async def ask(does: str) -> bool:
            """Whether the price is fresh after an answer."""
            feed.does = does
            quotes.refresh(time.time())
            await quotes.settled()
            return quotes.at(time.time())[cloud].valid_to_s >= time.time()

        assert await ask("truth")
        true = {quotes.at(time.time())[cloud].usd_per_gpu_hour}
        for lie in LIES:
            assert [await ask(lie) for _ in range(4)] == [False] * 4, lie
        assert not await ask("500")
        assert await ask("truth")
        assert await ask("500"), "a good price ages; it is not stale at once"
        assert {await ask(FLICKER) for _ in range(6)} == {True, False}
        assert await ask("truth")
        said = {a.usd for a in feed.answers if a.kind == "truth"}
        assert true | {quotes.at(time.time())[cloud].usd_per_gpu_hour} <= said
        await feed.close()

    asyncio.run(run())


def test_a_feed_that_hangs_says_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        feed = PriceFeed(LOCAL / "prices" / "market.csv", time.time())
        await feed.open()
        feed.does = HANG
        loaded = load(configured(tmp_path / "config", feed.port))
        quotes = Quotes(loaded.configuration, {}, time.time())
        quotes.refresh(time.time())
        await quotes.settled()
        assert not quotes.at(time.time()).keys() & {place(loaded).cloud_pool}
        assert "no answer" in (quotes.trouble(place(loaded).cloud_pool) or "")
        assert not feed.answers
        await feed.close()

    asyncio.run(run())
