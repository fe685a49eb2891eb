"""Of two attempts that race, none is left open, in whichever moment their client goes."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.gateway.attempts import Begun
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.upstream import UpstreamFailed

TURNS = 12


@pytest.mark.parametrize("loser_ends", ["cancelled", "begun"])
@pytest.mark.parametrize("leaves_after", range(TURNS))
def test_every_attempt_of_a_race_is_ended_or_passed_on(leaves_after: int, loser_ends: str) -> None:
    begun: list[Begun] = []
    ended: list[Begun] = []

    async def begin(_: Any, attempt: Any, rest: None) -> Begun:
        try:
            await asyncio.sleep(0 if attempt.endpoint == "second" else 10)
        except asyncio.CancelledError:
            # A loser takes some turns to end, or began in the moment it was cancelled.
            for _turn in range(3):
                await asyncio.sleep(0)
            if loser_ends == "cancelled":
                raise
        begun.append(Begun(attempt, SimpleNamespace()))  # type: ignore[arg-type]
        return begun[-1]

    async def inside() -> None:
        relay: Any = Relay.__new__(Relay)
        relay._attempts = SimpleNamespace(begin=begin, end=lambda _, one: ended.append(one))
        second = SimpleNamespace(endpoint="second")

        async def another(*_: Any) -> Any:
            return second

        relay._second = another
        first = SimpleNamespace(endpoint="first")
        hedge = SimpleNamespace(after_s=0)
        racing = asyncio.create_task(relay._first_to_begin(None, first, hedge, {}))
        for _ in range(leaves_after):
            await asyncio.sleep(0)
        racing.cancel()
        (result,) = await asyncio.gather(racing, return_exceptions=True)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        passed_on = [result] if isinstance(result, Begun) else []
        assert {*map(id, ended), *map(id, passed_on)} == set(map(id, begun))
        assert len(ended) + len(passed_on) == len(begun)

    asyncio.run(inside())


@pytest.mark.parametrize("first_ends_after", range(4))
def test_when_both_fail_each_endpoint_has_its_own_reason(first_ends_after: int) -> None:
    reasons = {"first": "cut", "second": "status_500"}

    async def begin(_: Any, attempt: Any, rest: None) -> Begun:
        for _turn in range(4 + first_ends_after if attempt.endpoint == "first" else 2):
            await asyncio.sleep(0)
        raise UpstreamFailed(reasons[attempt.endpoint])

    async def inside() -> None:
        relay: Any = Relay.__new__(Relay)
        relay._attempts = SimpleNamespace(begin=begin)

        async def another(*_: Any) -> Any:
            return SimpleNamespace(endpoint="second")

        relay._second = another
        failed: dict[str, str] = {}
        first = SimpleNamespace(endpoint="first")
        with pytest.raises(UpstreamFailed):
            await relay._first_to_begin(None, first, SimpleNamespace(after_s=0), failed)
        assert failed == {e: f"failed this request: {why}" for e, why in reasons.items()}

    asyncio.run(inside())
