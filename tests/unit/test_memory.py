"""What a controller remembers when it starts again."""

import asyncio
import os
import stat
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from orchestrator.capacity.override import Override, OverrideKind
from orchestrator.capacity.planner import Decided, Observation, plan
from orchestrator.capacity.provision import Provision
from orchestrator.cli.stack import app as commands
from orchestrator.config.load import ConfigurationError
from orchestrator.config.store import PolicyStore
from orchestrator.controller.lease import FileLease
from orchestrator.controller.main import MEMORY, Process
from orchestrator.controller.memory import Memory, PoolHold
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState, EndpointState, Hold, Quote
from tests.worlds import small


def burst(pool: str, phase: BurstPhase = BurstPhase.BURSTING) -> BurstState:
    return BurstState(phase=phase, pool=pool, since_s=1)


def planned(memory: Memory, catalogue: Catalogue, open_in_cloud: int = 0) -> dict[str, int]:
    cloud = EndpointState(ready_replicas=1, inflight={"g": open_in_cloud})
    observation = Observation(
        endpoints={"cloud-gpu/m-fp16": cloud},
        replicas=memory.targets,
        quotes={},
        budget_left_usd={},
        oldest_snapshot=7,
    )
    decided = Decided(memory.bursts, memory.targets, memory.draining_published)
    return plan(catalogue, observation, decided, 100).targets


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    memory = Memory(bursts={"assistant": burst("cloud-gpu")}, targets={"cloud-gpu/m-fp16": 2})
    memory.write(tmp_path / "memory.json")
    assert Memory.read(tmp_path / "memory.json") == memory


def test_a_file_that_is_not_whole_is_refused_but_a_fresh_start_needs_only_what_was_spent(
    tmp_path: Path,
) -> None:
    file = tmp_path / "memory.json"
    file.write_text('{"bursts": {"w": {"phase": "of old"}}, "version": 7}')
    with pytest.raises(ValueError, match="move it away"):
        Memory.read(file)
    assert Memory.read(file, fresh=True) == Memory(version=7)
    for text in ("{", "7", "[]"):
        file.write_text(text)
        with pytest.raises(ValueError, match="move it away"):
            Memory.read(file)


def test_the_memory_before_is_read_where_the_newest_is_not_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "memory.json"
    for version in (1, 2):
        Memory(version=version, targets={"e": version}).write(file)
    assert not caplog.records
    file.write_bytes(file.read_bytes()[:-5])
    assert Memory.read(file) == Memory(version=1, targets={"e": 1})
    assert Memory.read(file, fresh=True) == Memory(version=1)
    assert {r.levelname for r in caplog.records} == {"ERROR"}
    Memory(version=3).write(file)
    assert Memory.read(file) == Memory(version=3)
    file.write_text("")
    assert Memory.read(file).version == 1, "what is not whole took the place of what is"
    assert {f.name for f in tmp_path.iterdir()} == {"memory.json", "memory.json.before"}


def test_a_memory_is_on_the_disk_before_it_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "memory.json"
    Memory(version=1).write(file)
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        what = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((what, Memory.read(file).version))

    monkeypatch.setattr(os, "fsync", noted)
    Memory(version=2).write(file)
    assert synced == [("file", 1), ("directory", 2)]


def test_a_controller_without_a_whole_memory_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_STATE", str(tmp_path))
    monkeypatch.setenv("ORCHESTRATOR_TOKEN", "a-token")
    PolicyStore(tmp_path).apply(Path("clusters/local"), lambda *_: [])
    (tmp_path / "controller.json").write_text("{")
    ended = CliRunner().invoke(commands, ["controller"])
    assert ended.exit_code == 1
    assert isinstance(ended.exception, SystemExit)
    assert f"{tmp_path / 'controller.json'}: not a controller's state; move it away" in ended.stderr


def test_a_burst_that_the_configuration_still_has_is_kept() -> None:
    memory = Memory(bursts={"assistant": burst("cloud-gpu")}, targets={"cloud-gpu/m-fp16": 2})
    memory.follow(small(), 100)
    assert planned(memory, small()) == {"home-gpu/m-fp16": 1, "cloud-gpu/m-fp16": 2}


def test_what_the_configuration_has_no_more_is_forgotten() -> None:
    memory = Memory(
        bursts={"assistant": burst("a-pool-of-old"), "records": BurstState()},
        targets={"a-pool-of-old/m-fp16": 2, "home-gpu/m-fp16": 1},
        draining_published={"a-workload-of-old": 3},
    )
    memory.follow(small(), 100)
    assert memory == Memory(targets={"home-gpu/m-fp16": 1})
    assert planned(memory, small()) == {"home-gpu/m-fp16": 1, "cloud-gpu/m-fp16": 0}


@pytest.mark.parametrize("workload", ["records", "a-workload-of-old"])
def test_a_burst_that_the_rules_have_no_more_drains_under_no_live_stream(workload: str) -> None:
    memory = Memory(bursts={workload: burst("cloud-gpu")}, targets={"cloud-gpu/m-fp16": 1})
    memory.follow(small(), 100)
    assert memory.bursts[workload].phase is BurstPhase.DRAINING
    assert memory.bursts[workload].since_s == 100
    for open_streams, published, target in (
        (3, {workload: 5}, 1),
        (0, {}, 1),
        (0, {workload: 5}, 0),
    ):
        memory.draining_published = published
        assert planned(memory, small(), open_streams)["cloud-gpu/m-fp16"] == target


def test_a_clock_that_went_back_takes_along_what_has_begun_and_an_absence_what_lasts() -> None:
    def memory() -> Memory:
        state = BurstState(since_s=100, condition_since_s=200)
        lacking = Provision(lacking_since_s=200, retry_at_s=300)
        return Memory(bursts={"w": state, "never": BurstState()}, provisions={"e": lacking})

    back, absent = memory(), memory()
    back.skip(-50)
    assert (back.bursts["w"].since_s, back.bursts["w"].condition_since_s) == (50, 150)
    assert (back.provisions["e"].lacking_since_s, back.provisions["e"].retry_at_s) == (150, 250)
    assert back.bursts["never"] == BurstState()
    absent.skip(1000)
    assert (absent.bursts["w"].since_s, absent.bursts["w"].condition_since_s) == (100, 1200)
    lacking = absent.provisions["e"]
    assert (lacking.lacking_since_s, lacking.retry_at_s) == (1200, 300)


def test_a_fresh_start_keeps_what_is_not_about_the_fleet(tmp_path: Path) -> None:
    quote = Quote(usd_per_gpu_hour=2, source="market", fetched_at_s=1, valid_to_s=2)
    kept = {
        "holds": {"home-gpu": PoolHold(hold=Hold.DRAINED)},
        "overrides": {"assistant": Override(kind=OverrideKind.HOLD)},
        "quotes": {"cloud-gpu": quote},
        "version": 7,
    }
    memory = Memory.model_validate(kept | {"targets": {"e": 1}, "warm": ["e"], "charged_to_s": 5})
    memory.write(tmp_path / "memory.json")
    assert Memory.read(tmp_path / "memory.json", fresh=True) == Memory.model_validate(kept)


@pytest.mark.parametrize("led_since", [False, True])
def test_a_fresh_start_forgets_the_fleet_that_was_there_when_it_began(
    tmp_path: Path, led_since: bool
) -> None:
    Memory(targets={"e": 1}).write(tmp_path / MEMORY)

    async def inside() -> None:
        async with aiohttp.ClientSession() as session:
            lease = FileLease(tmp_path / "lock", "a")
            process = Process(tmp_path, lease, "a", session, fresh=True)
            if led_since:
                Memory(targets={"e": 2}).write(tmp_path / MEMORY)
            with pytest.raises(ConfigurationError, match="nothing was applied"):
                await process.run()

    asyncio.run(inside())
    assert Memory.read(tmp_path / MEMORY).targets == ({"e": 2} if led_since else {})


def test_a_fresh_start_that_cannot_write_says_so(tmp_path: Path) -> None:
    PolicyStore(tmp_path)
    (tmp_path / f"{MEMORY}.{os.getpid()}.draft").mkdir()

    async def inside() -> None:
        async with aiohttp.ClientSession() as session:
            lease = FileLease(tmp_path / "lock", "a")
            await Process(tmp_path, lease, "a", session, fresh=True).run()

    with pytest.raises(ConfigurationError, match="cannot be written: Is a directory"):
        asyncio.run(inside())
