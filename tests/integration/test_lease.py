"""Who leads: over the HTTP of a Kubernetes API server, and on one machine."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from kubernetes import client

from orchestrator.controller import kubernetes_lease
from orchestrator.controller.kubernetes_lease import ACT_S, LEASE_S, KubernetesLease
from orchestrator.controller.lease import FileLease, Lease, campaign, fence
from orchestrator.pools.actuator import PoolError
from tests.fake_leases import LeaseServer
from tests.integration.engines import serve


class World:
    def __init__(self, server: LeaseServer, url: str) -> None:
        self.server = server
        self.now_s = 0.0
        self._url = url

    def contender(self, name: str, clock_is_ahead_s: float = 0) -> KubernetesLease:
        settings = client.Configuration(host=self._url)
        settings.retries = 0
        api = client.CoordinationV1Api(client.ApiClient(settings))
        return KubernetesLease(
            api, "default", "controller", name, lambda: self.now_s + clock_is_ahead_s
        )


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def inside() -> None:
        server = LeaseServer()
        async with serve(server.application()) as url:
            await test(World(server, url))

    asyncio.run(inside())


async def led_by_the_first(w: World) -> tuple[KubernetesLease, KubernetesLease]:
    """Two contenders, of whom the second has seen the first one lead."""
    first, second = w.contender("first"), w.contender("second", clock_is_ahead_s=5000)
    for contender in (first, second):
        await contender.keep()
    assert first.held()
    assert not second.held()
    assert second.holder == "first"
    return first, second


def test_the_next_one_takes_over_when_the_leader_is_silent_and_that_one_has_stopped_before() -> (
    None
):
    async def test(w: World) -> None:
        first, second = await led_by_the_first(w)
        held: list[tuple[float, bool, bool]] = []
        while w.now_s < 15:
            w.now_s += 0.5
            await second.keep()
            held.append((w.now_s, first.held(), second.held()))
        assert not any(one and other for _, one, other in held)
        stopped_s = next(now_s for now_s, one, _ in held if not one)
        taken_s = next(now_s for now_s, _, other in held if other)
        assert stopped_s <= ACT_S < LEASE_S < taken_s < LEASE_S + 1

    run(test)


def test_a_leader_that_renews_stays() -> None:
    async def test(w: World) -> None:
        first, second = await led_by_the_first(w)
        for _ in range(20):
            w.now_s += 2
            await first.keep()
            await second.keep()
            assert first.held()
            assert not second.held()

    run(test)


def test_a_leader_that_was_paused_finds_that_it_leads_no_more() -> None:
    async def test(w: World) -> None:
        first, second = await led_by_the_first(w)
        w.now_s += LEASE_S + 1
        await second.keep()
        assert second.held()
        assert not first.held()
        with pytest.raises(PoolError, match="another controller leads"):
            fence(first)()
        await first.keep()
        assert not first.held()
        assert first.holder == "second"

    run(test)


@pytest.mark.parametrize("fault", ["fails_with", "hangs", "loses_answers"])
def test_a_leader_that_cannot_renew_stops_in_time_and_leads_again_when_it_can(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_lease, "REQUEST_TIMEOUT_S", 0.1)

    async def test(w: World) -> None:
        first, _ = await led_by_the_first(w)
        setattr(w.server, fault, 500)
        w.now_s += 2
        await first.keep()
        assert first.held(), "what it had is not over yet"
        w.now_s = ACT_S
        await first.keep()
        assert not first.held()
        setattr(w.server, fault, 0)
        await first.keep()
        assert first.held()

    run(test)


def test_one_that_is_given_up_is_taken_at_once() -> None:
    async def test(w: World) -> None:
        first, second = await led_by_the_first(w)
        await first.give_up()
        assert not first.held()
        await second.keep()
        assert second.held()
        spec = w.server.leases.objects["controller"]["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 2)

    run(test)


def test_giving_up_what_somebody_else_has_takes_it_from_nobody() -> None:
    async def test(w: World) -> None:
        first, second = await led_by_the_first(w)
        w.now_s += LEASE_S + 1
        await second.keep()
        await first.give_up()
        await second.keep()
        assert second.held()

    run(test)


HOLD_A_LOCK = """
import asyncio, sys, time
from pathlib import Path
from orchestrator.controller.lease import FileLease
lease = FileLease(Path(sys.argv[1]), "the other")
asyncio.run(lease.keep())
print(lease.held(), flush=True)
time.sleep(600)
"""


def test_on_one_machine_a_lock_is_free_when_its_process_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LOCK, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "True\n"

        async def test() -> None:
            lease = FileLease(path, "me")
            await lease.keep()
            assert (lease.held(), lease.holder) == (False, "the other")
            os.kill(other.pid, signal.SIGSTOP)
            await lease.keep()
            assert not lease.held(), "one that is paused still has it"
            other.kill()
            other.wait()
            await lease.keep()
            assert (lease.held(), lease.holder) == (True, "me")

        asyncio.run(test())
    finally:
        other.kill()


def test_a_lock_whose_file_was_taken_away_is_lost(tmp_path: Path) -> None:
    async def test() -> None:
        one, other = FileLease(tmp_path / "lock", "one"), FileLease(tmp_path / "lock", "other")
        await one.keep()
        os.unlink(tmp_path / "lock")
        assert not one.held()
        await other.keep()
        await one.keep()
        assert (one.held(), other.held()) == (False, True)

    asyncio.run(test())


def test_a_lock_that_cannot_be_opened_is_not_held_and_is_tried_again(tmp_path: Path) -> None:
    async def test() -> None:
        lease = FileLease(tmp_path / "state" / "lock", "me")
        await lease.keep()
        assert (lease.held(), lease.holder) == (False, "")
        (tmp_path / "state").mkdir()
        await lease.keep()
        assert (lease.held(), lease.holder) == (True, "me")

    asyncio.run(test())


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_is_kept_where_the_disk_does_not_take_the_holders_name(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def test() -> None:
        one, other = FileLease(tmp_path / "lock", "one"), FileLease(tmp_path / "lock", "other")
        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            await one.keep()
        await other.keep()
        assert (one.held(), one.holder, other.held()) == (True, "one", False)

    asyncio.run(test())


class Switched:
    """A lease that is had when the test says so."""

    period_s = 0.01
    holder = ""

    def __init__(self) -> None:
        self.on = False

    async def keep(self) -> None:
        pass

    def held(self) -> bool:
        return self.on

    async def give_up(self) -> None:
        self.on = False


def test_one_leads_while_it_has_the_lease_and_no_longer() -> None:
    async def test() -> None:
        lease, log = Switched(), []

        async def lead() -> None:
            log.append("leads")
            try:
                await asyncio.Event().wait()
            finally:
                log.append("stops")

        made: Lease = lease
        campaigning = asyncio.create_task(campaign(made, lambda: asyncio.create_task(lead())))
        for on, expected in ((False, 0), (True, 1), (False, 2), (True, 3)):
            lease.on = on
            await asyncio.sleep(0.05)
            assert len(log) == expected
        campaigning.cancel()
        await asyncio.gather(campaigning, return_exceptions=True)
        assert log == ["leads", "stops"] * 2
        assert not lease.held()

    asyncio.run(test())


def test_what_breaks_while_leading_ends_the_process_and_frees_the_lease() -> None:
    async def test() -> None:
        lease = Switched()
        lease.on = True

        async def lead() -> None:
            raise ValueError("a memory that is not whole")

        with pytest.raises(ValueError, match="not whole"):
            await campaign(lease, lambda: asyncio.create_task(lead()))
        assert not lease.held()

    asyncio.run(test())
