"""Two controllers, one leader: who stands by answers nobody, and takes over with what was known."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app as cli
from orchestrator.controller.http import application
from orchestrator.controller.lease import FileLease
from orchestrator.controller.main import Process
from orchestrator.signals.report import GatewayReport
from tests.integration.engines import apply, serve
from tests.integration.test_control_loop import CONFIG

TOKEN = "a-token"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", TOKEN)
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path / "state"))


class Contender:
    def __init__(self, state: Path, session: aiohttp.ClientSession, name: str) -> None:
        self.name = name
        self.url = ""
        self._session = session
        lease = FileLease(state / "controller.lock", name)
        self.process = Process(state, lease, name, session, fresh=False)
        self.running = asyncio.create_task(self.process.run())

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with self._session.request(
            method, f"{self.url}/v1/{path}", json=body, headers=headers
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status == 200 else text

    async def probe(self, path: str) -> int:
        async with self._session.get(self.url + path) as answer:
            return answer.status

    async def exchange(self) -> int:
        report = GatewayReport(gateway_id="g", config_version="v", snapshot_version=0)
        return (await self.ask("POST", "exchange", report.model_dump(mode="json")))[0]

    async def until_it_leads(self) -> None:
        async with asyncio.timeout(15):
            while await self.exchange() != 200:
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@asynccontextmanager
async def contender(
    state: Path, session: aiohttp.ClientSession, name: str
) -> AsyncIterator[Contender]:
    made = Contender(state, session, name)
    async with serve(application(made.process.controller)) as made.url:
        try:
            yield made
        finally:
            await made.stop()


def run(tmp_path: Path, test: Callable[[Path, aiohttp.ClientSession], Awaitable[None]]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    text = CONFIG.format(home="http://127.0.0.1:9", away="http://127.0.0.1:9", port=9)
    (state / "all.yaml").write_text(text)
    (state / "market.csv").write_text("time_s,usd_per_gpu_hour\n0,2\n")
    apply(state)

    async def inside() -> None:
        async with aiohttp.ClientSession() as session:
            await test(state, session)

    asyncio.run(inside())


def test_who_stands_by_answers_nobody_and_takes_over_with_what_was_known(tmp_path: Path) -> None:
    async def test(state: Path, session: aiohttp.ClientSession) -> None:
        async with contender(state, session, "first") as first:
            await first.until_it_leads()
            assert (await first.ask("POST", "pools/home-gpu/hold", {"hold": "drained"}))[0] == 200
            async with contender(state, session, "second") as second:
                await asyncio.sleep(0.7)
                assert await second.exchange() == 503
                assert (await second.ask("GET", "state"))[0] == 503
                assert [await second.probe(p) for p in ("/healthz", "/readyz")] == [200, 503]
                assert [await first.probe(p) for p in ("/healthz", "/readyz")] == [200, 200]
                version = (await first.ask("GET", "snapshot"))[1]["version"]
                await first.stop()
                assert await first.exchange() == 503
                await second.until_it_leads()
                _, snapshot = await second.ask("GET", "snapshot")
                assert snapshot["version"] > version
                assert snapshot["holds"] == {"home-gpu": "drained"}
                _, answer = await second.ask("GET", "events")
                leaders = [
                    (e["subject"], e["what"]) for e in answer["events"] if e["kind"] == "leader"
                ]
                assert leaders == [
                    ("first", "leads"),
                    ("first", "leads no longer"),
                    ("second", "leads"),
                ]

    run(tmp_path, test)


def command(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [*arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_bursts_and_pools_are_held_by_hand_at_the_command_line(tmp_path: Path) -> None:
    async def test(state: Path, session: aiohttp.ClientSession) -> None:
        async with contender(state, session, "first") as first:
            await first.until_it_leads()
            config = tmp_path / "config"
            config.mkdir()
            text = (state / "all.yaml").read_text()
            port = first.url.rpartition(":")[2]
            (config / "all.yaml").write_text(
                text.replace('127.0.0.1:9", tick', f'127.0.0.1:{port}", tick')
            )
            (config / "market.csv").write_text((state / "market.csv").read_text())

            async def say(*arguments: str, code: int = 0) -> Any:
                given = (*arguments, "--config", str(config))
                output = await asyncio.to_thread(command, *given, code=code)
                return json.loads(output) if "--json" in arguments and not code else output

            forced = await say("burst", "force", "assistant", "--for", "30m", "--json")
            assert (forced["kind"], forced["pool"]) == ("force", None)
            assert abs(forced["until_s"] - time.time() - 1800) < 60
            await until(first, "bursting")
            shown = await say("burst", "status", "--json")
            assert shown["assistant"]["reason"] == "forced by hand"
            assert shown["assistant"]["override"] == {
                "kind": "force",
                "pool": None,
                "until_s": forced["until_s"],
            }
            assert "forced by hand" in await say("burst", "status")
            assert "burst release assistant" in await say("burst", "hold", "assistant")
            await say("burst", "release", "assistant")
            await until(first, "draining", "home")
            for wrong in (
                ("burst", "force", "assistant", "--pool", "home-gpu"),
                ("burst", "force", "records"),
                ("burst", "hold", "nobody"),
                ("burst", "hold", "assistant", "--for", "soon"),
                ("pools", "drain", "nowhere"),
            ):
                await say(*wrong, code=2)
            await say("pools", "drain", "cloud-gpu", "--for", "1h")
            assert "drained until" in " ".join((await say("pools", "list")).split())
            kinds = {e["kind"] for e in await say("events", "--since", "10m", "--json")}
            assert {"leader", "burst", "hold"} <= kinds
            assert "forced by hand" in await say("events")

    run(tmp_path, test)


async def until(who: Contender, *states: str) -> None:
    async with asyncio.timeout(10):
        while (await who.ask("GET", "state"))[1]["bursts"]["assistant"]["state"] not in states:
            await asyncio.sleep(0.05)


def test_what_is_asked_wrongly_is_refused_with_the_reason(tmp_path: Path) -> None:
    async def test(state: Path, session: aiohttp.ClientSession) -> None:
        async with contender(state, session, "first") as first:
            await first.until_it_leads()
            for path, body, status in (
                ("pools/home-gpu/hold", {"hold": "never"}, 400),
                ("pools/home-gpu/hold", {"hold": "drained", "for_s": -1}, 400),
                ("pools/home-gpu/hold", {"hold": "drained", "for": 1}, 400),
                ("pools/nowhere/hold", {"hold": "drained"}, 404),
                ("bursts/assistant", {"override": "perhaps"}, 400),
                ("bursts/records", {"override": "force"}, 400),
                ("bursts/nobody", {"override": "force"}, 404),
            ):
                found, text = await first.ask("POST", path, body)
                assert (found, bool(text)) == (status, True)
            assert (await first.ask("GET", "events?after=x"))[0] == 400

    run(tmp_path, test)
