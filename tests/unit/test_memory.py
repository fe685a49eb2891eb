"""What a controller remembers when it starts again."""

from pathlib import Path

import pytest

from orchestrator.capacity.planner import Observation, plan
from orchestrator.controller.memory import Memory
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import BurstPhase, BurstState
from tests.worlds import small

NOTHING = Observation({}, {}, {}, {}, 0)


def burst(pool: str, phase: BurstPhase = BurstPhase.BURSTING) -> BurstState:
    return BurstState(phase=phase, pool=pool, since_s=1)


def planned(memory: Memory, catalogue: Catalogue) -> dict[str, int]:
    return plan(
        catalogue, NOTHING, memory.bursts, memory.targets, memory.draining_published, 100
    ).targets


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


def test_a_burst_that_the_configuration_still_has_is_kept() -> None:
    memory = Memory(bursts={"assistant": burst("cloud-gpu")}, targets={"cloud-gpu/m-fp16": 2})
    memory.forget_unknown(small())
    assert planned(memory, small()) == {"home-gpu/m-fp16": 1, "cloud-gpu/m-fp16": 2}


def test_what_the_configuration_has_no_more_is_forgotten() -> None:
    memory = Memory(
        bursts={
            "assistant": burst("a-pool-of-old"),
            "records": burst("cloud-gpu"),
            "a-workload-of-old": burst("cloud-gpu", BurstPhase.DRAINING),
        },
        targets={"a-pool-of-old/m-fp16": 2, "home-gpu/m-fp16": 1},
        draining_published={"a-workload-of-old": 3},
    )
    memory.forget_unknown(small())
    assert memory == Memory(targets={"home-gpu/m-fp16": 1})
    assert planned(memory, small()) == {"home-gpu/m-fp16": 1, "cloud-gpu/m-fp16": 0}
