"""Price feeds over real HTTP: what is asked, and a controller whose feed hangs or lies."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config.spec import Configuration
from orchestrator.controller.events import EventKind
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import Controller
from orchestrator.controller.quotes import Quotes
from orchestrator.policy.catalogue import Catalogue
from orchestrator.pools.actuator import Replicas
from tests.fake_pools import FakeCluster
from tests.integration.engines import scripted, serve
from tests.price_server import FAULTS, PriceServer, price_server
from tests.worlds import small

ONPREM = {
    "hardware_usd": 35040,
    "years": 4,
    "gpu_w": 600,
    "host_w": 200,
    "draw_feed": "draw",
    "pue": 1.25,
    "tariff": {"feed": "tariff"},
}


def world(*feeds: dict[str, Any], home: dict[str, Any] | None = None) -> Configuration:
    raw = small().configuration.model_dump(mode="json")
    raw["price_feeds"] = list(feeds)
    if home is not None:
        raw["pools"][0]["price"] = home
    return Configuration.model_validate(raw)


def http_feed(url: str, **changed: Any) -> dict[str, Any]:
    source = {"url": url, "value": "/usd", "made_at": None}
    return {"name": "market", "http": source, "refresh_s": 1, "timeout_s": 5} | changed


def with_server(test: Callable[[PriceServer], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with price_server() as server:
            await test(server)

    asyncio.run(inside())


async def said(quotes: Quotes, now_s: float) -> float | None:
    quotes.refresh(now_s)
    await quotes.settled()
    quote = quotes.at(now_s).get("cloud-gpu")
    return quote.usd_per_gpu_hour if quote else None


def test_a_controllers_ticks_do_not_wait_for_a_feed_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = FakeCluster(monkeypatch)
    cluster.replicas = {"home-gpu/m-fp16": Replicas(ready=1)}

    async def test(server: PriceServer) -> None:
        catalogue = Catalogue(world(http_feed(server.url, timeout_s=600)), "v1")
        async with aiohttp.ClientSession() as session:
            fleet = Fleet(catalogue, session)
            controller = Controller(catalogue, fleet, tmp_path / "memory.json", 1000)
            await controller.tick(1000)
            await server.asked.wait()
            first = controller.snapshot.version
            for now_s in (1001, 1002, 1400):
                await controller.tick(now_s)
            assert controller.snapshot.version == first + 3
            assert len(server.requests) == 1
            assert "cloud-gpu" not in controller.snapshot.quotes

    with_server(test)


def test_the_last_good_price_survives_a_controller_and_is_what_its_successor_measures_by(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = FakeCluster(monkeypatch)
    cluster.replicas = {"home-gpu/m-fp16": Replicas(ready=1)}

    async def test(server: PriceServer) -> None:
        catalogue = Catalogue(world(http_feed(server.url)), "v1")

        async def tick(controller: Controller, now_s: float) -> dict[str, Any]:
            await controller.tick(now_s)
            await controller._quotes.settled()
            await controller.tick(now_s + 0.5)
            found: dict[str, Any] = controller.state()["pools"]["cloud-gpu"]
            return found

        async with aiohttp.ClientSession() as session:
            path = tmp_path / "memory.json"
            server.does = 2.0
            first = Controller(catalogue, Fleet(catalogue, session), path, 1000)
            assert (await tick(first, 1000))["quote"]["usd_per_gpu_hour"] == 2.0
            server.does = 0.01
            second = Controller(catalogue, Fleet(catalogue, session), path, 1001)
            state = await tick(second, 1010)
            server.does = 2.1
            await tick(second, 1020)
            told = [e for e in second.events.after(0) if e.kind is EventKind.PRICE]
        assert [(e.subject, e.what) for e in told] == [
            ("cloud-gpu", "the newest price is not taken"),
            ("cloud-gpu", "the newest price is taken again"),
        ]
        assert "0.01 USD per GPU-hour is outside 1 to 4" in told[0].reason
        assert state["quote"]["usd_per_gpu_hour"] == 2.0
        assert state["quote"]["valid_to_s"] < 1010
        assert "0.01 USD per GPU-hour is outside 1 to 4" in state["price"]["trouble"]

    with_server(test)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_feed_that_fails_leaves_its_last_price_to_age_and_says_why_once(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "orchestrator.prices")

    async def test(server: PriceServer) -> None:
        quotes = Quotes(world(http_feed(server.url, timeout_s=2)), {}, 1000)
        server.does = 2.0
        assert await said(quotes, 1000) == 2.0
        server.does = fault
        for now_s in (1010, 1020):
            assert await said(quotes, now_s) == 2.0
        quote = quotes.at(1020)["cloud-gpu"]
        assert (quote.fetched_at_s, quote.valid_to_s) == (1000, 1300)
        assert (quotes.trouble("cloud-gpu") or "").startswith("price feed market: ")
        server.does = 2.1
        assert await said(quotes, 1030) == 2.1
        assert quotes.trouble("cloud-gpu") is None

    with_server(test)
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "market" in warning


def test_a_price_that_moved_is_taken_when_fetches_in_a_row_say_so() -> None:
    async def test(server: PriceServer) -> None:
        quotes = Quotes(world(http_feed(server.url)), {}, 1000)
        steps: list[tuple[str | float, float]] = [
            *((2.0, 2.0), (9.0, 2.0), (9.0, 2.0), ("500", 2.0), (9.0, 2.0)),
            *((9.1, 2.0), (9.2, 9.2), (9.3, 9.3)),
        ]
        for number, (server.does, published) in enumerate(steps):
            assert await said(quotes, 1000 + 10 * number) == published

    with_server(test)


def test_no_secret_and_no_word_of_the_feed_is_in_a_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "orchestrator")

    async def test(server: PriceServer) -> None:
        feed = http_feed(f"{server.url}?account=hidden")
        feed["http"]["headers"] = {"Authorization": "Bearer ${MARKET_TOKEN}"}
        quotes = Quotes(world(feed), {}, 1000)
        await said(quotes, 1000)
        assert "MARKET_TOKEN; set it" in (quotes.trouble("cloud-gpu") or "")
        assert not server.requests
        monkeypatch.setenv("MARKET_TOKEN", "s3cret\n")
        server.does = "not json"
        await said(quotes, 1010)
        assert b"Authorization: Bearer s3cret\r\n" in server.requests[0]
        monkeypatch.setenv("MARKET_TOKEN", "s3cret\r\nx: y")
        await said(quotes, 1020)
        assert len(server.requests) == 1

    with_server(test)
    for word in ("s3cret", "hidden", "sign in"):
        assert word not in caplog.text


def test_prometheus_is_asked_an_instant_query_and_answers_for_each_pool() -> None:
    asked: list[tuple[str, dict[str, list[str]]]] = []

    async def prometheus(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, parse_qs(urlsplit(str(request.rel_url)).query)))
        pools = {"cloud-gpu": "2.5", "other": "9"}
        result = [{"metric": {"pool": p}, "value": [1000, usd]} for p, usd in pools.items()]
        data = {"resultType": "vector", "result": result}
        return web.json_response({"status": "success", "data": data})

    async def test() -> None:
        async with serve(scripted(prometheus)) as url:
            source = {"url": f"{url}/select/0", "pool_label": "pool"}
            feed = {"name": "market", "prometheus": source, "max_age_s": 60}
            quotes = Quotes(world(feed), {}, 1000)
            assert await said(quotes, 1010) == 2.5
            assert quotes.at(1010)["cloud-gpu"].valid_to_s == 1060

    asyncio.run(test())
    query = {"query": ["max(node_gpu_hourly_cost > 0)"]}
    assert asked == [("/select/0/api/v1/query", query)]


def test_an_owned_pool_costs_what_its_feeds_say_and_is_as_old_as_its_tariff() -> None:
    figures: dict[str, float | None] = {"tariff": 0.2, "draw": 400, "usd": 2}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(figures)

    async def test() -> None:
        async with serve(scripted(answer)) as url:
            units = {"market": "usd_per_gpu_hour", "tariff": "usd_per_kwh", "draw": "w"}
            feeds = [
                {
                    "name": name,
                    "unit": unit,
                    "http": {"url": url, "value": "/usd" if name == "market" else f"/{name}"},
                    "max_age_s": 100,
                }
                for name, unit in units.items()
            ]
            quotes = Quotes(world(*feeds, home={"onprem": ONPREM}), {}, 1000)
            assert "home-gpu" not in quotes.at(1000)
            for now_s, tariff, draw, usd in (
                (1000, 0.2, 400.0, 1.15),  # (400 + 200) W × 1.25 × 0.2, and 1 for the hardware
                (1010, -0.2, 400.0, 0.85),
                (1120, 0.2, None, 1.2),  # nobody measures: 600 + 200 W
            ):
                figures.update(tariff=tariff, draw=draw)
                await said(quotes, now_s)
                quote = quotes.at(now_s)["home-gpu"]
                assert quote.usd_per_gpu_hour == pytest.approx(usd)
                assert (quote.fetched_at_s, quote.valid_to_s) == (now_s, now_s + 100)
            assert "as configured" in (quotes.described("home-gpu", 1120)["made_of"] or "")
            figures["tariff"] = None
            await said(quotes, 1130)
            stale = quotes.at(1230)["home-gpu"]
            assert (stale.usd_per_gpu_hour, stale.valid_to_s) == (quote.usd_per_gpu_hour, 1220)

    asyncio.run(test())


def test_a_feed_whose_rules_change_is_believed_anew_and_the_others_are_not() -> None:
    async def test(server: PriceServer) -> None:
        quotes = Quotes(world(http_feed(server.url)), {}, 1000)
        server.does = 2.0
        await said(quotes, 1000)
        server.does = 9.0
        assert await said(quotes, 1010) == 2.0
        quotes.follow(world(http_feed(server.url)), 1015)
        assert await said(quotes, 1020) == 2.0
        quotes.follow(world(http_feed(server.url, refresh_s=2)), 1025)
        assert quotes.at(1025)["cloud-gpu"].usd_per_gpu_hour == 2.0
        assert await said(quotes, 1030) == 9.0

    with_server(test)


def test_a_price_that_a_feed_says_is_old_is_valid_from_when_it_was_made() -> None:
    async def test(server: PriceServer) -> None:
        feed = http_feed(server.url)
        feed["http"]["made_at"] = "/at"
        quotes = Quotes(world(feed), {}, 1000)
        server.does, server.made_at_s = 2.0, 800
        assert await said(quotes, 1000) == 2.0
        assert quotes.at(1000)["cloud-gpu"].valid_to_s == 1100
        assert await said(quotes, 1200) == 2.0
        assert quotes.at(1200)["cloud-gpu"].fetched_at_s == 1000
        assert "400 s ago" in (quotes.trouble("cloud-gpu") or "")

    with_server(test)
