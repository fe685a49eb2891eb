"""A log says of an exception where it was, not what it said: a canary sings in every text."""

import asyncio
import logging
import socket
import sqlite3
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.classify import classifier_for
from orchestrator.config.data_class import DataClass
from orchestrator.config.keys import KeyRing
from orchestrator.config.load import ConfigurationError, Problem
from orchestrator.config.store import PolicyStore
from orchestrator.controller import fleet as fleet_module
from orchestrator.controller import follow as follow_module
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.loop import Controller
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.pools.actuator import PoolError
from orchestrator.pools.ray import RayPools
from orchestrator.safe_log import without_text
from orchestrator.sessions.ratchet import Ratchet
from orchestrator.sessions.store import SessionStore, SessionsUnavailable
from tests.fake_pools import FakeCluster
from tests.integration.engines import CONFIG, apply, scripted, serve
from tests.worlds import small

CANARY = "c4n4ry"
BROKEN = ConfigurationError([Problem(Path("/rules/all.yaml"), 7, f"no token '{CANARY}'")])
CAUSES = [BROKEN, RuntimeError(CANARY), OSError(28, CANARY), PoolError("away", CANARY)]


@pytest.fixture(autouse=True)
def _silence(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


def raising(error: BaseException) -> Callable[..., Any]:
    def broken(*_: object, **__: object) -> Any:
        raise error

    return broken


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_an_exception_is_told_by_kind_and_place_and_so_are_its_causes() -> None:
    try:
        try:
            raising(ValueError(CANARY))()
        except ValueError:
            raise KeyError(CANARY) from None
    except KeyError as error:
        told = without_text(error)
    assert told.startswith("KeyError in test_safe_log.py:")
    assert "; after ValueError in test_safe_log.py:" in told
    assert CANARY not in told


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device", f"/{CANARY}"), "OSError (No space left on device)"),
        (OSError(28, CANARY), "OSError"),
        (OSError(CANARY), "OSError"),
        (ssl.SSLError(1, CANARY), "SSLError"),
        (socket.gaierror(-2, CANARY), "gaierror"),
        (sqlite3.OperationalError(CANARY), "OperationalError"),
    ],
)
def test_of_the_system_its_own_words_are_told(error: Exception, kind: str) -> None:
    assert without_text(error) == f"{kind} in ?"


def test_of_sqlite_its_code_is_told(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        sqlite3.connect(tmp_path / CANARY / "x")
    assert without_text(raised.value).startswith("OperationalError (SQLITE_CANTOPEN) in ")


def test_sessions_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionStore, "highest", raising(SessionsUnavailable(CANARY)))
    configuration = small().configuration
    body = {"messages": [{"role": "user", "content": CANARY}]}
    labels = Sensitivity(Ratchet(tmp_path / "sessions.sqlite", b"0" * 16)).read(
        classifier_for(configuration),
        configuration.workloads[0].name,
        DataClass.PUBLIC,
        CANARY,
        body,
    )
    assert labels.session is DataClass.RESTRICTED
    assert "SessionsUnavailable in sensitivity.py" in caplog.text


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    nowhere = "http://127.0.0.1:9"
    text = CONFIG.format(home=nowhere, away=nowhere, controller=nowhere, total_s=60, max_open=9)
    (tmp_path / "all.yaml").write_text(text)
    apply(tmp_path)
    return Exchange(tmp_path, Telemetry(), [], lambda: None)


def test_keys_that_cannot_be_taken(
    exchange: Exchange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys.yaml").write_text(f"keys: [{{id: {CANARY}")
    assert exchange.keys == {}
    assert "keys.yaml: ParserError" in caplog.text


@pytest.mark.parametrize("error", CAUSES, ids=lambda error: type(error).__name__)
def test_keys_that_cannot_be_looked_at(
    exchange: Exchange,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeyRing, "refresh", raising(error))
    assert exchange.keys == {}
    assert f"{type(error).__name__} in exchange.py" in caplog.text


@pytest.mark.parametrize("error", CAUSES, ids=lambda error: type(error).__name__)
def test_rules_that_a_gateway_does_not_take(
    exchange: Exchange,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Exchange, "_once", raising(error))

    told = "all.yaml:7" if error is BROKEN else f"{type(error).__name__} in exchange.py"

    async def inside() -> None:
        running = asyncio.create_task(exchange.run())
        await until(lambda: told in caplog.text)
        running.cancel()

    asyncio.run(inside())


@pytest.mark.parametrize("error", CAUSES, ids=lambda error: type(error).__name__)
def test_a_controller_whatever_fails(
    error: Exception,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster(monkeypatch)
    cluster.scale_error = error
    monkeypatch.setattr(fleet_module, "warm_up", raising(error))
    monkeypatch.setattr(PolicyStore, "current", raising(error))
    monkeypatch.setattr(Controller, "tick", raising(error))
    monkeypatch.setattr(follow_module, "anchor", raising(error))
    monkeypatch.setattr(follow_module, "FOLLOW_S", 0)
    monkeypatch.setattr(follow_module, "ANCHOR_S", 0.001)
    catalogue = small()
    endpoint = next(iter(catalogue.candidates))

    def said(words: str) -> bool:
        return any(words in record.getMessage() for record in caplog.records)

    async def inside() -> None:
        async with aiohttp.ClientSession() as session:
            fleet = Fleet(catalogue, session)
            controller = Controller(catalogue, fleet, tmp_path / "controller.json", 100)
            running = [
                asyncio.create_task(controller.run()),
                asyncio.create_task(follow_module.follow(PolicyStore(tmp_path), controller)),
                asyncio.create_task(follow_module.anchor_audit(tmp_path, controller)),
            ]
            fleet.set_targets({endpoint: 1}, frozenset(), 100)
            await until(lambda: said("a tick failed"))
            await until(lambda: said("rules are not taken"))
            await until(lambda: said("not anchored"))
            await until(lambda: said(f"{endpoint}: away") or said("'scale"))
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await fleet.stop()

    asyncio.run(inside())


def test_what_a_cluster_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=500, text=f"runtime_env: HF_TOKEN={CANARY}")

    async def inside() -> PoolError:
        candidate = next(iter(small().candidates.values()))
        async with serve(scripted(answer)) as url, aiohttp.ClientSession() as session:
            cluster = candidate.cluster.model_copy(update={"dashboard_url": url})
            with pytest.raises(PoolError, match=CANARY) as raised:
                await RayPools(cluster, session).observe([candidate])
        return raised.value

    error = asyncio.run(inside())
    assert error.summary == "GET /api/serve/applications/: 500"
