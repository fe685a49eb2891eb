"""The gateway's line to a controller that answers, fails, or stands still."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.config import keys
from orchestrator.gateway import exchange as exchange_module
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.snapshot import Snapshot
from orchestrator.signals.report import GatewayReport, WorkloadReport
from tests.integration.engines import CONFIG, apply, scripted, serve


class FakeController:
    """Answers with `snapshot`, or with a status alone, and keeps every report."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(version=1, config_version="", created_at_s=0)
        self.status = 200
        self.reports: list[GatewayReport] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.reports.append(GatewayReport.model_validate_json(await request.read()))
        return web.Response(status=self.status, text=self.snapshot.model_dump_json())

    def publish(self, version: int, config_version: str) -> None:
        self.snapshot = Snapshot(version=version, config_version=config_version, created_at_s=0)

    async def answers(self, count: int = 2) -> None:
        """Until so many more exchanges have begun; all but the last of them are over then."""
        wanted = len(self.reports) + count
        await until(lambda: len(self.reports) >= wanted)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def exchanging(tmp_path: Path) -> AsyncIterator[tuple[Exchange, FakeController, Telemetry]]:
    controller, telemetry = FakeController(), Telemetry()
    async with serve(scripted(controller.handle)) as url:
        nowhere = "http://127.0.0.1:9"
        text = CONFIG.format(home=nowhere, away=nowhere, controller=url, total_s=60, max_open=100)
        (tmp_path / "all.yaml").write_text(text)
        apply(tmp_path)
        exchange = Exchange(tmp_path, telemetry, [], lambda: None)
        controller.publish(1, exchange.catalogue.version)
        running = asyncio.create_task(exchange.run())
        try:
            yield exchange, controller, telemetry
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def test_a_snapshot_that_comes_again_goes_on_ageing(tmp_path: Path) -> None:
    async def inside() -> None:
        async with exchanging(tmp_path) as (exchange, controller, _):
            await until(lambda: exchange.snapshot.version == 1)
            received_s = time.monotonic()
            await controller.answers()
            passed_s = time.monotonic() - received_s
            assert exchange.snapshot_age_s >= passed_s

            before_s = time.monotonic()
            controller.publish(2, exchange.catalogue.version)
            await until(lambda: exchange.snapshot.version == 2)
            assert exchange.snapshot_age_s <= time.monotonic() - before_s

    asyncio.run(inside())


@pytest.mark.parametrize("error", [OSError, TypeError, RecursionError])
def test_no_failure_ends_the_exchange_or_keeps_a_revoked_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(_: Path) -> None:
        raise error

    async def inside() -> None:
        async with exchanging(tmp_path) as (exchange, controller, _):
            key, _plain = keys.create(tmp_path, "open")
            await until(lambda: key.id in exchange.keys)
            monkeypatch.setattr(exchange_module, "load_rules", broken)
            controller.publish(2, "a configuration that is not here")
            await controller.answers()
            keys.revoke(tmp_path, key.id)
            await until(lambda: key.id not in exchange.keys)
            controller.publish(3, exchange.catalogue.version)
            await until(lambda: exchange.snapshot.version == 3)

    asyncio.run(inside())


def test_a_gateway_says_goodbye_and_a_controller_that_fails_hinders_it_not(tmp_path: Path) -> None:
    async def inside() -> None:
        async with exchanging(tmp_path) as (exchange, controller, _):
            await controller.answers()
            assert not any(report.leaving for report in controller.reports)
            await exchange.say_goodbye()
            assert controller.reports[-1].leaving
            assert controller.reports[-1].gateway_id == exchange.gateway_id
            controller.status = 503
            await exchange.say_goodbye()

    asyncio.run(inside())


def test_what_was_measured_while_the_controller_failed_is_reported_when_it_answers(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with exchanging(tmp_path) as (_, controller, telemetry):
            controller.status = 503
            telemetry.used("a-home/m-1", "open", "m", "onprem", 3, 4)
            await controller.answers()
            telemetry.used("a-home/m-1", "open", "m", "onprem", 1, 1)
            await controller.answers()
            controller.status = 200
            refused = len(controller.reports)
            await controller.answers(4)
            taken = [
                r.endpoints["a-home/m-1"].tokens
                for r in controller.reports[refused:]
                if r.endpoints
            ]
            assert taken == [{"open": 9}]

    asyncio.run(inside())


def test_arrivals_that_a_failing_controller_did_not_take_are_reported_when_it_answers(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with exchanging(tmp_path) as (_, controller, telemetry):
            controller.status = 503
            telemetry.demand.arrived("open", 100)
            await controller.answers()
            telemetry.demand.arrived("open", 20)
            telemetry.demand.answered("open", 7)
            await controller.answers()
            controller.status = 200
            refused = len(controller.reports)
            await controller.answers(4)
            taken = [r.workloads for r in controller.reports[refused:] if r.workloads]
            counts = WorkloadReport(requests=2, prompt_tokens=120, answered=1, output_tokens=7)
            assert taken == [{"open": counts}]

    asyncio.run(inside())
