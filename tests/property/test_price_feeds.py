"""Whatever a price feed does: nothing waits for it, nothing is raised, and no price is published
that was not said, cannot be, or leaps without having been confirmed."""

import asyncio
import math
import os
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.spec import Configuration, PriceFeed
from orchestrator.controller.quotes import Quotes
from orchestrator.policy.snapshot import Quote
from orchestrator.signals.prices_trust import Trust, judge
from tests.price_server import FAULTS, PriceServer, price_server
from tests.worlds import small

EXAMPLES = int(os.environ.get("ORCHESTRATOR_EXAMPLES", "1000"))
FACTOR, CONFIRMATIONS, MAX_AGE_S = 2.0, 3, 60.0
LOWEST, HIGHEST = 0.05, 50.0
POOL = "cloud-gpu"

NAN, INF = float("nan"), float("inf")
LIES = [NAN, INF, -INF, 0.0, -0.0, -1.0, 1e-300, 5e-324, 1e300, 0.049, 50.1]
PRICES = st.sampled_from([2.0, 2.0, 3.9, 4.1, 0.9, 9.0, 20.0, *LIES]) | st.floats()
AGES = st.none() | st.sampled_from([-61.0, -59.0, -0.1, 0.0, 30.0, 59.0, 61.0]) | st.floats()


def feed_to(url: str) -> dict[str, object]:
    return {
        "name": "market",
        "http": {"url": url, "value": "/usd"},
        "timeout_s": 0.2,
        "refresh_s": 1,
        "max_age_s": MAX_AGE_S,
        "plausible": {
            "factor": FACTOR,
            "confirmations": CONFIRMATIONS,
            "lowest": LOWEST,
            "highest": HIGHEST,
        },
    }


def world(feed: dict[str, object]) -> Configuration:
    raw = small().configuration.model_dump(mode="json") | {"price_feeds": [feed]}
    return Configuration.model_validate(raw)


def near(one: float, other: float) -> bool:
    return one <= other * FACTOR and other <= one * FACTOR


def confirmed(said: Sequence[float | None], published: float) -> bool:
    """Whether the newest fetches in a row agree on it."""
    last = [figure for figure in said[-CONFIRMATIONS:] if figure is not None]
    return (
        len(last) == CONFIRMATIONS
        and last[-1] == published
        and all(near(figure, last[0]) for figure in last)
    )


def check(before: Quote | None, after: Quote | None, said: Sequence[float | None]) -> None:
    """`said` by each fetch so far; None where it failed."""
    if after is None:
        assert before is None
        return
    usd = after.usd_per_gpu_hour
    assert math.isfinite(usd)
    assert LOWEST <= usd <= HIGHEST
    assert after.valid_to_s <= after.fetched_at_s + MAX_AGE_S
    if before is None:
        assert usd == said[-1]
    elif usd != before.usd_per_gpu_hour:
        assert usd == said[-1]
        assert near(usd, before.usd_per_gpu_hour) or confirmed(said, usd)


@settings(max_examples=EXAMPLES, deadline=None)
@given(said=st.lists(PRICES | st.none(), max_size=30), made=st.lists(AGES, max_size=30))
def test_no_figure_outside_the_band_is_believed_unconfirmed(
    said: list[float | None], made: list[float | None]
) -> None:
    spec, trust, before = PriceFeed.model_validate(feed_to("http://127.0.0.1")), Trust(), None
    for number, figure in enumerate(said):
        now_s = 1000.0 + 10 * number
        age_s = made[number] if number < len(made) else None
        made_at_s = None if age_s is None else now_s - age_s
        trust = judge(spec, trust, figure, made_at_s, now_s)
        good = trust.good
        after = good and Quote(
            usd_per_gpu_hour=good.value,
            source="market",
            fetched_at_s=good.fetched_at_s,
            valid_to_s=good.valid_to_s,
        )
        check(before, after, said[: number + 1])
        # What was refused invites nobody to start a burst.
        assert trust.refused is None or after is None or after.valid_to_s < now_s
        before = after


@settings(max_examples=max(EXAMPLES // 20, 20), deadline=None)
@given(
    does=st.lists(st.just(2.0) | PRICES | st.sampled_from(FAULTS), min_size=1, max_size=6),
    remembered=st.none() | st.floats(LOWEST, HIGHEST),
)
def test_a_feed_over_http_cannot_lie_hang_or_raise_its_way_out(
    does: list[float | str], remembered: float | None
) -> None:
    quote = remembered and Quote(
        usd_per_gpu_hour=remembered, source="market", fetched_at_s=990, valid_to_s=1050
    )

    async def test(server: PriceServer) -> None:
        known = {POOL: quote} if quote else {}
        quotes = Quotes(world(feed_to(server.url)), known, 1000)
        before, said = quotes.at(1000).get(POOL), list[float | None]()
        for number, server.does in enumerate(does):
            now_s = 1000.0 + 10 * number
            quotes.refresh(now_s)
            # A tick that comes meanwhile has what there was.
            assert quotes.at(now_s).get(POOL) == before
            await quotes.settled()
            said.append(server.does if isinstance(server.does, float) else None)
            after = quotes.at(now_s).get(POOL)
            check(before, after, said)
            if isinstance(server.does, str):
                assert quotes.trouble(POOL)
            before = after
        assert not any(b" /true " in request for request in server.requests)

    async def run() -> None:
        async with price_server() as server:
            await test(server)

    asyncio.run(run())
