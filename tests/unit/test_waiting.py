"""Who waits for a replica goes by priority, and leaves nothing behind."""

import asyncio

from orchestrator.gateway.waiting import WaitingRoom


def test_the_most_important_goes_first_and_of_equals_who_came_first() -> None:
    async def inside() -> list[str]:
        room, order = WaitingRoom(), []

        async def one(name: str, priority: int) -> None:
            await room.wait(priority, timeout_s=10)
            order.append(name)

        waiting = [
            asyncio.create_task(one(name, priority))
            for name, priority in (("low", 10), ("first", 50), ("second", 50), ("high", 90))
        ]
        await asyncio.sleep(0)
        room.wake()
        await asyncio.gather(*waiting)
        assert not len(room)
        return order

    assert asyncio.run(inside()) == ["high", "first", "second", "low"]


def test_who_gives_up_or_is_cancelled_is_forgotten() -> None:
    async def inside() -> None:
        room = WaitingRoom()
        await room.wait(50, timeout_s=0.01)
        gone = asyncio.create_task(room.wait(50, timeout_s=10))
        await asyncio.sleep(0)
        assert len(room) == 1
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert not len(room)
        room.wake()

    asyncio.run(inside())
