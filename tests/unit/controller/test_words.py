"""What somebody says by hand: it holds, it ends, it is remembered."""

import os
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.controller.events import EventKind
from orchestrator.controller.http import application
from orchestrator.controller.memory import Memory
from orchestrator.policy.snapshot import BurstPhase, Hold
from tests.fake_pools import FakeCluster
from tests.unit.controller.world import Make, Run, told


def test_a_pool_that_somebody_drains_stays_drained_over_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.hold("home-gpu", Hold.DRAINED)
        await first.tick(101)
        assert first.snapshot.holds == {"home-gpu": Hold.DRAINED}
        again = make(102)
        await again.tick(102)
        assert again.snapshot.holds == {"home-gpu": Hold.DRAINED}
        assert again.state()["pools"]["home-gpu"]["hold"] == "drained"
        await again.hold("home-gpu", None)
        await again.tick(103)
        assert again.snapshot.holds == {}
        with pytest.raises(KeyError):
            await again.hold("nowhere", Hold.LEAVING)

    run(test)


def test_a_hold_ends_by_itself_also_after_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.hold("home-gpu", Hold.DRAINED, until_s=110)
        await first.tick(101)
        again = make(109)
        await again.tick(109)
        assert again.snapshot.holds == {"home-gpu": Hold.DRAINED}
        assert again.state()["pools"]["home-gpu"]["hold_until_s"] == 110
        await again.tick(110)
        assert again.snapshot.holds == {}
        assert told(again, EventKind.HOLD)[-1] == ("home-gpu", "is held no longer")

    run(test)


@pytest.mark.usefixtures("cheap")
def test_a_word_on_a_burst_holds_for_its_time_and_over_a_restart(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        first = make(100)
        await first.tick(100)
        await first.override("assistant", Override(kind=OverrideKind.FORCE, until_s=150))
        await first.tick(101)
        assert first.snapshot.bursts["assistant"].phase is BurstPhase.BURSTING
        again = make(102)
        for now_s in (102, 149):
            await again.tick(now_s)
        assert again.snapshot.bursts["assistant"].phase is BurstPhase.BURSTING
        assert again.state()["bursts"]["assistant"]["override"]["until_s"] == 150
        for now_s in (150, 151, 155):
            await again.tick(now_s)
        assert again.snapshot.bursts["assistant"].phase is not BurstPhase.BURSTING

    run(test)


def test_a_word_on_a_burst_is_only_taken_where_the_rules_have_one(run: Run) -> None:
    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        with pytest.raises(KeyError):
            await controller.override("nobody", Override(kind=OverrideKind.HOLD))
        with pytest.raises(ValueError, match="no burst"):
            await controller.override("records", Override(kind=OverrideKind.FORCE))
        with pytest.raises(ValueError, match="may burst to cloud-gpu, not 'home-gpu'"):
            await controller.override(
                "assistant", Override(kind=OverrideKind.FORCE, pool="home-gpu")
            )

    run(test)


def test_a_word_that_cannot_be_written_is_refused_and_does_not_hold(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "t")

    async def test(make: Make, cluster: FakeCluster) -> None:
        controller = make(100)
        await controller.tick(100)
        asked = {
            "/v1/pools/home-gpu/hold": {"hold": "drained"},
            "/v1/bursts/assistant": {"override": "hold"},
        }
        headers = {"authorization": "Bearer t"}
        async with TestClient(TestServer(application(lambda: controller))) as client:
            draft = tmp_path / f"controller.json.{os.getpid()}.draft"
            draft.mkdir()
            for path, body in asked.items():
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status == 503
                assert "cannot be written: Is a directory" in await answer.text()
            await controller.tick(101)
            assert controller.snapshot.holds == {}
            assert controller.state()["bursts"]["assistant"]["override"] is None
            draft.rmdir()
            for path, body in asked.items():
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status == 200
            kept = Memory.read(tmp_path / "controller.json")
            assert set(kept.holds) == {"home-gpu"}
            assert set(kept.overrides) == {"assistant"}

    run(test)
