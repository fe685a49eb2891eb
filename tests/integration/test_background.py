"""The loops of a running gateway: each goes on after what would have ended it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gateway import background
from orchestrator.gateway.access import Access
from orchestrator.gateway.deferred import Deferred
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.relay import Relay
from orchestrator.gateway.replicas import Replicas
from tests.integration.engines import world

LOOPS: dict[str, tuple[type, str]] = {
    "the exchange with the controller": (Exchange, "_once"),
    "what follows from exchanges": (Relay, "follow"),
    "the renewal of issuers' keys": (Access, "run"),
    "the sharing of metrics": (Replicas, "publish"),
    "the run of batches": (Deferred, "_round"),
}


@pytest.mark.parametrize("name", LOOPS)
def test_every_loop_begins_again_after_an_end_that_nobody_foresaw(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.setattr(background, "RESTART_S", 0.01)
    where, method = LOOPS[name]
    whole: Callable[..., Any] = getattr(where, method)
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            # Of a task that was waited for, say.
            raise asyncio.CancelledError
        return whole(*arguments)

    monkeypatch.setattr(where, method, failing)

    async def inside() -> None:
        async with world(tmp_path) as w, asyncio.timeout(10):
            while calls < 2:
                await asyncio.sleep(0.01)
            async with w.post() as answer:
                assert answer.status == 200

    asyncio.run(inside())
    assert [m for m in caplog.messages if m.startswith(f"{name} ended")]
