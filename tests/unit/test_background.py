"""Loops that run beside the requests: none ends unseen, and none stays ended."""

import asyncio
import logging

import pytest

from orchestrator.gateway import background as module
from orchestrator.gateway.background import background


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0)


async def cancelled_within() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def failed() -> None:
    raise ValueError("sk-secret")


async def returned() -> None:
    pass


@pytest.mark.parametrize(
    ("end", "said"),
    [(failed, "ValueError"), (returned, "it returned"), (cancelled_within, "CancelledError")],
)
def test_a_loop_that_ends_is_told_of_without_its_text_and_begins_again(
    end: module.Loop, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun = 0

    async def loop() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            await end()
        else:
            goes_on.set()
            await asyncio.sleep(60)

    async def test() -> None:
        async with asyncio.timeout(10), background("the errands", loop):
            await goes_on.wait()

    goes_on = asyncio.Event()
    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert begun == 3
    assert len(caplog.messages) == 2
    assert all("the errands ended" in m and said in m for m in caplog.messages)
    assert "sk-secret" not in caplog.text


def test_a_loop_has_ended_when_its_context_is_left(caplog: pytest.LogCaptureFixture) -> None:
    over = False

    async def loop() -> None:
        nonlocal over
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            over = True

    async def test() -> None:
        async with background("the errands", loop):
            await asyncio.sleep(0)
        assert over
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(test())
    assert not caplog.messages
