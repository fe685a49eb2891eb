"""Rules that are applied while requests run, and decisions that can be made again afterwards."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.load import ConfigurationError
from orchestrator.config.store import PolicyStore
from orchestrator.controller.fleet import Fleet
from orchestrator.controller.follow import follow
from orchestrator.controller.http import application
from orchestrator.controller.loop import Controller
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.sensitivity import Labels, Sensitivity
from orchestrator.ledger.audit_verify import verify
from orchestrator.policy.catalogue import Catalogue
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from tests.integration.engines import CONFIG, apply, serve_engine, serve_gateway, text

SLOW = EngineSpec("m", ttft_s=0.001, itl_s=0.01, max_num_seqs=50, max_model_len=100_000)


class Stack:
    """A gateway and its controller in front of two engines, on one state directory."""

    def __init__(
        self,
        directory: Path,
        url: str,
        home: SimulatedEngine,
        away: SimulatedEngine,
        session: aiohttp.ClientSession,
        controller: Controller,
    ) -> None:
        self.directory, self.url = directory, url
        self.home, self.away = home, away
        self.session, self.controller = session, controller
        self.keys: dict[str, str] = {}

    async def ask(
        self, workload: str, tokens: int = 3, request_id: str = "r", content: str = "Hello."
    ) -> tuple[int, str]:
        async with self.session.post(
            f"{self.url}/v1/chat/completions",
            json={
                "model": "m",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": tokens,
                "stream": True,
            },
            headers={
                "authorization": f"Bearer {self.keys[workload]}",
                "x-request-id": request_id,
            },
        ) as answer:
            return answer.status, await answer.text()

    def change(self, old: str, new: str) -> None:
        file = self.directory / "all.yaml"
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new))

    async def taken(self, version: str) -> None:
        """Until the gateway decides by this version."""
        async with asyncio.timeout(10):
            while {g["config_version"] for g in self.controller.state()["gateways"].values()} != {
                version
            }:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def stack(tmp_path: Path, port: int) -> AsyncIterator[Stack]:
    home, away = SimulatedEngine(SLOW, remember=True), SimulatedEngine(SLOW, remember=True)
    async with serve_engine(home) as home_url, serve_engine(away) as away_url:
        (tmp_path / "all.yaml").write_text(
            CONFIG.format(
                home=home_url,
                away=away_url,
                controller=f"http://127.0.0.1:{port}",
                total_s=60,
                max_open=100,
            )
        )
        plain = {name: keys.create(tmp_path, name)[1] for name in ("open", "closed")}
        apply(tmp_path)
        store = PolicyStore(tmp_path)
        applied = store.current()
        assert applied is not None
        loaded = store.load(applied.version)
        catalogue = Catalogue(loaded.configuration, loaded.version)
        async with aiohttp.ClientSession() as session:
            controller = Controller(
                catalogue, Fleet(catalogue, session), tmp_path / "controller.json", time.time()
            )
            runner = web.AppRunner(application(lambda: controller), shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            running = [
                asyncio.create_task(controller.run()),
                asyncio.create_task(follow(store, controller)),
            ]
            try:
                async with serve_gateway(tmp_path) as url:
                    made = Stack(tmp_path, url, home, away, session, controller)
                    made.keys = plain
                    await made.taken(loaded.version)
                    yield made
            finally:
                for task in running:
                    task.cancel()
                await runner.cleanup()


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "a-token")


def version(directory: Path) -> str:
    applied = PolicyStore(directory).current()
    assert applied is not None
    return applied.version


def test_applied_rules_take_hold_and_no_request_is_dropped(tmp_path: Path, free_port: int) -> None:
    async def test() -> None:
        async with stack(tmp_path, free_port) as s:
            running = [asyncio.create_task(s.ask("open", tokens=300)) for _ in range(6)]
            while len(s.home.received) + len(s.away.received) < 6:
                await asyncio.sleep(0.01)
            at_home = len(s.home.received)
            assert at_home
            s.change("allowed_zones: [onprem, cloud]", "allowed_zones: [cloud]")
            apply(tmp_path)
            await s.taken(version(tmp_path))
            assert not any(task.done() for task in running)
            status, _ = await s.ask("open")
            assert status == 200
            assert len(s.home.received) == at_home
            for status, body in await asyncio.gather(*running):
                assert status == 200
                assert text(body).split() == [f"t{i}" for i in range(300)]
                assert body.endswith("data: [DONE]\n\n")

    asyncio.run(test())


def test_rules_that_are_broken_never_replace_good_ones(tmp_path: Path, free_port: int) -> None:
    async def test() -> None:
        async with stack(tmp_path, free_port) as s:
            good = version(tmp_path)
            s.change("data_class: restricted", "data_class: secret")
            with pytest.raises(ConfigurationError):
                apply(tmp_path)
            assert version(tmp_path) == good
            # Whatever somebody writes over the copy itself, nobody takes it up.
            s.change("data_class: secret", "data_class: restricted")
            s.change("allowed_zones: [onprem]", "allowed_zones: [onprem, cloud]")
            copy = PolicyStore(tmp_path).files(good) / "all.yaml"
            copy.write_bytes((tmp_path / "all.yaml").read_bytes())
            with pytest.raises(ConfigurationError, match="altered"):
                Gateway(tmp_path)
            s.home.faults.append(broken())
            assert (await s.ask("closed"))[0] == 503
            assert not s.away.received

    asyncio.run(test())


def test_without_rules_a_gateway_does_not_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="apply"):
        Gateway(tmp_path)


def broken() -> Any:
    from orchestrator.simulate.faults import Fault

    return Fault.parse("status")


def explain(directory: Path, request_id: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "explain", request_id, "--json"],
        env=os.environ | {"ORCHESTRATOR_STATE": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_every_attempt_is_on_record_and_can_be_made_again(tmp_path: Path, free_port: int) -> None:
    async def test() -> None:
        async with stack(tmp_path, free_port) as s:
            s.home.faults.append(broken())
            assert (await s.ask("open", request_id="went-away"))[0] == 200
            assert (await s.ask("closed", request_id="stayed"))[0] == 503
            s.change("slo: {ttft_p95_s: 1}", "slo: {ttft_p95_s: 2}")
            apply(tmp_path)
            await s.taken(version(tmp_path))

    asyncio.run(test())
    assert verify(tmp_path / "audit") == []
    code, attempts = explain(tmp_path, "went-away")
    assert code == 0
    assert [a["decision"]["pool"] for a in attempts] == ["a-home", "b-away"]
    assert all(a["matches_record"] for a in attempts)
    code, attempts = explain(tmp_path, "stayed")
    assert [a["denied"] for a in attempts] == [None, "no_capacity"]
    assert all(a["matches_record"] for a in attempts)
    trail = b"".join(f.read_bytes() for f in (tmp_path / "audit").rglob("*.jsonl"))
    assert b"Hello" not in trail
    assert b"sk-" not in trail


def test_a_request_that_was_read_by_old_rules_is_read_again_by_the_new(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the old rules its workload is restricted, under the new its content: never neither."""
    read = Sensitivity.read
    reading = threading.Event()

    def slow(*arguments: Any) -> Labels:
        labels = read(*arguments)
        if not reading.is_set():
            reading.set()
            time.sleep(2)
        return labels

    async def test() -> None:
        async with stack(tmp_path, free_port) as s:
            s.change("max_body_bytes: 2000", "max_body_bytes: 200000")
            apply(tmp_path)
            await s.taken(version(tmp_path))
            s.home.faults.append(broken())
            monkeypatch.setattr(Sensitivity, "read", slow)
            asked = asyncio.create_task(s.ask("closed", content="Hello " + "x" * 90_000))
            while not reading.is_set():
                await asyncio.sleep(0.01)
            s.change(
                "data_class: restricted\n    models: [m]\n    allowed_zones: [onprem]",
                "data_class: public\n    models: [m]\n    markers: [Hello]\n"
                "    allowed_zones: [onprem, cloud]",
            )
            apply(tmp_path)
            await s.taken(version(tmp_path))
            assert not asked.done()
            assert (await asked)[0] == 503
            assert s.home.received
            assert not s.away.received

    asyncio.run(test())


def test_a_workload_that_is_no_more_is_refused(tmp_path: Path, free_port: int) -> None:
    async def test() -> None:
        async with stack(tmp_path, free_port) as s:
            s.change("name: closed", "name: renamed")
            key_file = tmp_path / "keys.yaml"
            key_file.write_text(key_file.read_text().replace("closed", "renamed"))
            apply(tmp_path)
            await s.taken(version(tmp_path))
            assert (await s.ask("closed"))[0] == 200  # the key speaks for the new name now
            assert (await s.ask("open"))[0] == 200

    asyncio.run(test())
