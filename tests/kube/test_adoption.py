"""What a controller leaves that is killed in the middle of something, the next one finds."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.pools.ray_service import wanted
from tests.kube.fault_server import Fault, FaultServer
from tests.kube.following import following, only, run, seen
from tests.kube.operator import Operator
from tests.kube.worlds import candidates

WRITES = ("PATCH", "PATCH", "DELETE")
"""Of `lone_controller`."""
STARTED_S = 60


def nth_write(number: int, fault: Fault) -> Callable[[str, str], Fault | None]:
    counting = threading.Lock()
    seen_so_far = -1

    def decide(method: str, path: str) -> Fault | None:
        nonlocal seen_so_far
        if method == "GET":
            return None
        with counting:
            seen_so_far += 1
            return fault if seen_so_far == number else None

    return decide


@pytest.mark.parametrize("carried_out", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("number", range(len(WRITES)))
def test_what_a_killed_controller_left_is_found_and_goes_on(
    operator: Operator, faults: FaultServer, number: int, carried_out: bool
) -> None:
    world = candidates(operator.namespace)
    chat = only(world)
    faults.decide = nth_write(number, Fault(None, passed_on=carried_out, hang_s=STARTED_S))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kube.lone_controller", operator.namespace],
        cwd=Path(__file__).parents[2],
    )
    try:
        assert faults.spoiled.wait(STARTED_S)
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    faults.freed.set()
    done = number + carried_out
    assert [wanted(s) for s in operator.services()] == [[], [1], [3], [3]][done]

    async def next_controller() -> None:
        async with following(chat) as pools:
            found = await pools.observe([chat])
            assert found.unowned == []
            assert set(found.replicas) == ({chat.endpoint} if done else set())
            existing = found.replicas.get(chat.endpoint)
            if existing is not None and not existing.deployed:
                operator.collect()
                await seen(pools, world, lambda o: o.replicas == {})
                existing = None
            await pools.scale(chat, 2, existing)
            assert [wanted(s) for s in operator.services()] == [2]

    async def controller_of_other_rules() -> None:
        async with following(chat) as pools:
            (unowned,) = (await pools.observe([])).unowned
            await pools.release(unowned.name)
            operator.collect()
            while (await pools.observe([])).unowned:
                await asyncio.sleep(0.02)
            assert operator.services() == []

    run(next_controller())
    run(controller_of_other_rules())
