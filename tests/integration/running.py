"""A world in a thread and an event loop of its own, for tests that drive many cases through it."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from tests.integration.engines import World, world

T = TypeVar("T")


@dataclass
class Running:
    loop: asyncio.AbstractEventLoop
    w: World

    def run(self, coroutine: Coroutine[Any, Any, T], limit_s: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(limit_s)

    @property
    def port(self) -> int:
        return int(self.w.url.rsplit(":", 1)[1])


@contextmanager
def running(directory: Path, **how: Any) -> Iterator[Running]:
    """`how` as for `world`. On the event loop that gateways have."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="world", daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCHESTRATOR_SESSION_KEY", "a key for tests alone")
        context = world(directory, **how)
        made = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(60)
        try:
            yield Running(loop, made)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
