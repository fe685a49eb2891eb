"""A pool whose replicas will be lost: its streams go on elsewhere, where they can."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.config import keys
from orchestrator.config.load import load
from orchestrator.policy.snapshot import EndpointState, Hold, Snapshot
from orchestrator.simulate.engine import EngineSpec, SimulatedEngine
from orchestrator.simulate.faults import Fault
from tests.integration.engines import CONFIG, scripted, serve, serve_engine, serve_gateway, text

SLOW = EngineSpec("m", ttft_s=0.001, itl_s=0.05)
HOME, AWAY = "a-home/m-1", "b-away/m-1"
ANSWER = "".join(f" t{n}" for n in range(20))


class Fleet:
    """Two slow engines behind a gateway, and what the controller says of them."""

    def __init__(self, slots: int = 4) -> None:
        self._slots = slots
        self.home = SimulatedEngine(replace(SLOW, max_num_seqs=slots), remember=True)
        self.away = SimulatedEngine(replace(SLOW, max_num_seqs=slots), remember=True)
        self.hold: Hold | None = None
        self.away_is_ready = True
        self.home_replicas = 1
        self._version = 1

    async def exchange(self, _: web.Request) -> web.Response:
        self._version += 1
        snapshot = Snapshot(
            version=self._version,
            config_version=self.config_version,
            created_at_s=time.time(),
            endpoints={
                HOME: EndpointState(ready_replicas=self.home_replicas),
                AWAY: EndpointState(ready_replicas=int(self.away_is_ready)),
            },
            holds={"a-home": self.hold} if self.hold else {},
        )
        return web.json_response(text=snapshot.model_dump_json())

    @asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[None]:
        async with (
            serve_engine(self.home) as home,
            serve_engine(self.away) as away,
            serve(scripted(self.exchange)) as controller,
        ):
            configuration = CONFIG.format(
                home=home, away=away, controller=controller, total_s=60, max_open=100
            )
            vllm = configuration.replace("kind: openai,", "kind: openai, engine: vllm,")
            vllm = vllm.replace("max_num_seqs: 4", f"max_num_seqs: {self._slots}")
            vllm = vllm.replace("_s: 1,", "_s: 20,")
            (directory / "all.yaml").write_text(vllm)
            self.config_version = load(directory).version
            self.keys = {name: keys.create(directory, name)[1] for name in ("open", "closed")}
            async with serve_gateway(directory) as self.url, aiohttp.ClientSession() as session:
                self._session = session
                await asyncio.sleep(0.2)
                yield

    async def ask(self, workload: str = "open", **more: Any) -> tuple[str, str]:
        """The pool that began the answer, and the answer."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
        async with self._session.post(
            f"{self.url}/v1/chat/completions",
            json=body | {"stream": True} | more,
            headers={"authorization": f"Bearer {self.keys[workload]}"},
        ) as answer:
            return answer.headers.get("x-orchestrator-pool", ""), await answer.text()


async def asked(engine: SimulatedEngine) -> None:
    while not engine.received:
        await asyncio.sleep(0.01)


def run(tmp_path: Path, test: Any, slots: int = 4) -> None:
    async def inside() -> None:
        fleet = Fleet(slots)
        async with asyncio.timeout(30), fleet.serving(tmp_path):
            await test(fleet)

    asyncio.run(inside())


def test_a_stream_moves_to_another_pool_and_stays_one_answer(tmp_path: Path) -> None:
    async def test(fleet: Fleet) -> None:
        asking = asyncio.create_task(fleet.ask())
        await asked(fleet.home)
        await asyncio.sleep(0.2)
        fleet.hold = Hold.LEAVING
        await asked(fleet.away)
        pool, answer = await asking
        assert pool == "a-home"
        assert text(answer) == ANSWER
        assert answer.endswith("data: [DONE]\n\n")
        assert fleet.home.cancelled == 1

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("workload", "more", "away_is_ready"),
    [("open", {}, False), ("closed", {}, True), ("open", {"seed": 1}, True)],
)
def test_a_stream_that_cannot_go_on_elsewhere_is_left_where_it_is(
    tmp_path: Path, workload: str, more: dict[str, Any], away_is_ready: bool
) -> None:
    async def test(fleet: Fleet) -> None:
        asking = asyncio.create_task(fleet.ask(workload, **more))
        await asked(fleet.home)
        fleet.away_is_ready, fleet.hold = away_is_ready, Hold.LEAVING
        _, answer = await asking
        assert text(answer) == ANSWER
        assert not fleet.away.received

    run(tmp_path, test)


def test_a_drained_pool_finishes_its_streams_and_gets_no_more(tmp_path: Path) -> None:
    async def test(fleet: Fleet) -> None:
        asking = asyncio.create_task(fleet.ask())
        await asked(fleet.home)
        fleet.hold = Hold.DRAINED
        await asyncio.sleep(0.3)
        assert (await fleet.ask(max_tokens=1))[0] == "b-away"
        pool, answer = await asking
        assert (pool, text(answer)) == ("a-home", ANSWER)
        assert fleet.home.cancelled == 0

    run(tmp_path, test)


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_answer_goes_on_at_the_same_endpoint_where_that_has_other_replicas(
    tmp_path: Path, replicas: int
) -> None:
    async def test(fleet: Fleet) -> None:
        fleet.home_replicas, fleet.away_is_ready = replicas, False
        await asyncio.sleep(0.2)
        fleet.home.faults.append(Fault.parse("cut:5"))
        asking = asyncio.create_task(fleet.ask("closed"))
        await asked(fleet.home)
        fleet.home.faults.clear()
        _, answer = await asking
        if replicas > 1:
            assert text(answer) == ANSWER
            assert answer.endswith("data: [DONE]\n\n")
        else:
            assert text(answer) == " t0 t1 t2 t3 t4"
            assert '"code":"stream_interrupted"' in answer

    run(tmp_path, test)


@pytest.mark.parametrize(("slots", "streams"), [(500, 60), (4, 10)])
def test_of_many_streams_none_is_lost_be_there_room_elsewhere_or_not(
    tmp_path: Path, slots: int, streams: int
) -> None:
    async def test(fleet: Fleet) -> None:
        asking = [asyncio.create_task(fleet.ask()) for _ in range(streams)]
        while len(fleet.home.received) + len(fleet.away.received) < streams:
            await asyncio.sleep(0.01)
        at_home = len(fleet.home.received)
        assert at_home
        fleet.hold = Hold.LEAVING
        answers = [text(answer) for _, answer in await asyncio.gather(*asking)]
        assert answers == [ANSWER] * streams
        assert fleet.home.cancelled == at_home or slots < streams

    run(tmp_path, test, slots)
