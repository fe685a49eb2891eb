"""Requests of callers who are no more, and of clients who have gone."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.gateway.asgi import WHEN_GONE, while_connected
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.intake import Intake

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


def test_for_a_client_that_has_gone_already_nothing_is_begun() -> None:
    begun = False

    async def ask() -> None:
        nonlocal begun
        scope: dict[str, Any] = {"extensions": {WHEN_GONE: lambda leave: leave and leave()}}
        try:
            with while_connected(scope, asyncio.sleep):  # type: ignore[arg-type]
                begun = True
        finally:
            await asyncio.sleep(0)  # and what comes after is not cancelled

    async def test() -> None:
        task = asyncio.create_task(ask())
        with pytest.raises(ClientGone):
            await task

    asyncio.run(test())
    assert not begun


def test_a_workload_that_ended_while_the_body_came_is_refused_as_such() -> None:
    catalogue = SimpleNamespace(workloads={}, by_model={})
    exchange: Any = SimpleNamespace(rules=SimpleNamespace(catalogue=catalogue, classifier=None))
    caller: Any = SimpleNamespace(workload="gone", check_model=lambda _: None)
    intake = Intake(exchange, SimpleNamespace())  # type: ignore[arg-type]

    async def read() -> None:
        await intake.read("r", caller, lambda: caller, "/v1/chat/completions", [], BODY, None)  # type: ignore[arg-type]

    with pytest.raises(ApiError) as refused:
        asyncio.run(read())
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
