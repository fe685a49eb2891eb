"""What a gateway does when its records cannot be written."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gateway.access_log import AccessLog
from orchestrator.ledger.audit import AuditLog
from orchestrator.ledger.usage import UsageLedger
from orchestrator.ledger.writer import BackgroundWriter
from tests.integration.engines import World, samples, world


def dies(_: object) -> None:
    raise SystemExit


def fails(_: object) -> None:
    raise OSError(28, "No space left on device")


async def lost(w: World) -> dict[str, float]:
    """By kind of record."""
    found = samples(await w.metrics(), "orchestrator_records_lost")
    return {labels["record"]: value for labels, value in found}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_an_audit_log_nothing_is_decided_and_nothing_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditLog, "_flush", dies)

    async def inside() -> None:
        async with world(tmp_path) as w:
            async with asyncio.timeout(20):
                while True:
                    async with w.post() as answer:
                        if answer.status == 503:
                            assert (await answer.json())["error"]["code"] == "not_on_record"
                            break
                    await asyncio.sleep(0.01)
            received = len(w.home.received) + len(w.away.received)
            async with w.post() as answer:
                assert answer.status == 503
            assert len(w.home.received) + len(w.away.received) == received
            assert (await lost(w))["audit"] > 0

    asyncio.run(inside())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("how", [dies, fails])
@pytest.mark.parametrize(("kind", "name"), [(UsageLedger, "usage"), (AccessLog, "access_log")])
def test_without_the_other_records_requests_are_served(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BackgroundWriter[Any]],
    name: str,
    how: Callable[[object], None],
) -> None:
    monkeypatch.setattr(kind, "_flush", how)

    async def inside() -> None:
        async with world(tmp_path) as w:
            async with asyncio.timeout(20):
                for _ in range(3):
                    async with w.post() as answer:
                        assert answer.status == 200
                while how is dies and not (await lost(w))[name]:
                    async with w.post() as answer:
                        assert answer.status == 200

    asyncio.run(inside())
