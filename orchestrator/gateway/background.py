"""Loops beside the requests, which go on for as long as the gateway does: one that ends is logged
and begun again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from orchestrator.safe_log import without_text

log = logging.getLogger("orchestrator.gateway")

RESTART_S = 1.0
"""From a loop's end to its next beginning."""

Loop = Callable[[], Awaitable[None]]


@asynccontextmanager
async def background(name: str, loop: Loop) -> AsyncIterator[None]:
    """Runs `loop` until the context is left, and waits for its end then. `name`: in the log."""
    task = asyncio.create_task(_kept_running(name, loop))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _kept_running(name: str, loop: Loop) -> None:
    task = asyncio.current_task()
    assert task is not None
    while True:
        why = "it returned"
        try:
            await loop()
        except asyncio.CancelledError as error:
            # Something that it waited for may have been cancelled, and not the loop.
            if task.cancelling():
                raise
            why = without_text(error)
        except Exception as error:
            why = without_text(error)
        log.error("%s ended and begins again in %g s: %s", name, RESTART_S, why)
        await asyncio.sleep(RESTART_S)
