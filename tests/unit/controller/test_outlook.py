"""What was learned of the load outlives the controller, and nothing about its file stops one."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.capacity.forecast import DEFAULT_PROMPT_TOKENS, STEP_S, Forecast
from orchestrator.capacity.load import Load
from orchestrator.config.spec import Configuration
from orchestrator.controller.outlook import WRITE_S, Outlook
from orchestrator.policy.catalogue import Catalogue
from tests.unit.controller.world import SMALL

LOAD = {"assistant": Load(50, 50 * 100, 50, 50 * 20)}
BEGIN_S = 1_700_000_000.0


def follow(outlook: Outlook, now_s: float, steps: int = 300) -> float:
    """Under a steady load; returns the time."""
    for _ in range(steps):
        outlook.observe(LOAD, now_s)
        now_s += STEP_S
    return now_s


def forecast(outlook: Outlook, now_s: float) -> Forecast:
    """After the fewest steps in which there is one, in which nothing arrives."""
    for step in range(2):
        outlook.observe({}, now_s + step * STEP_S)
    return outlook.observe({}, now_s + 2 * STEP_S)["assistant"]


def is_there(path: Path) -> bool:
    return path.exists()


async def write(outlook: Outlook, now_s: float, path: Path) -> None:
    """Waits for the file. (It is written beside the loop.)"""
    outlook.write_when_due(now_s)
    async with asyncio.timeout(5):
        while not is_there(path):
            await asyncio.sleep(0.001)


def learned(path: Path) -> Outlook:
    """One that has followed a load and written what it learned of it."""
    outlook = Outlook(SMALL, path, BEGIN_S)
    asyncio.run(write(outlook, follow(outlook, BEGIN_S), path))
    return outlook


def knows(outlook: Outlook) -> bool:
    """Whether its first forecast goes by lengths that were seen before."""
    return forecast(outlook, BEGIN_S + 1e6).prompt_tokens < DEFAULT_PROMPT_TOKENS / 2


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "load.npz"
    assert not knows(Outlook(SMALL, path, BEGIN_S))
    learned(path)
    again = Outlook(SMALL, path, BEGIN_S)
    assert not again.observe({}, BEGIN_S), "how much arrives at the moment is not known"
    assert knows(again)


def test_it_is_written_every_ten_minutes(tmp_path: Path) -> None:
    path = tmp_path / "load.npz"

    async def test() -> None:
        outlook = Outlook(SMALL, path, BEGIN_S)
        outlook.write_when_due(BEGIN_S + WRITE_S - 1)
        await asyncio.sleep(0.05)
        assert not path.exists()
        await write(outlook, BEGIN_S + WRITE_S, path)
        path.unlink()
        outlook.write_when_due(BEGIN_S + 2 * WRITE_S - 1)
        await asyncio.sleep(0.05)
        assert not path.exists()
        await write(outlook, BEGIN_S + 2 * WRITE_S, path)

    asyncio.run(test())
    assert [each.name for each in tmp_path.iterdir()] == ["load.npz"], "no draft is left"


def test_the_file_holds_no_text_but_the_names_of_workloads(tmp_path: Path) -> None:
    learned(path := tmp_path / "load.npz")
    with np.load(path, allow_pickle=False) as found:
        texts = [name for name in found if found[name].dtype.kind not in "fiu"]
        assert texts == ["workloads"]
        assert found["workloads"].tolist() == ["assistant", "records"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not what was learned")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rewritten(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        change(arrays)
        np.savez(path, **arrays)  # type: ignore[arg-type]

    return rewrite


BROKEN = {
    "cut off": cut,
    "empty": nothing,
    "text": text,
    "a directory": directory,
    "without a part": rewritten(lambda arrays: arrays.pop("usual")),
    "of other shapes": rewritten(lambda arrays: arrays.update(shape=np.zeros((2, 7, 9)))),
    "of more workloads": rewritten(lambda arrays: arrays.update(workloads=np.array(["a"]))),
    "no numbers": rewritten(lambda arrays: arrays["usual"].fill(np.nan)),
    "pickled": rewritten(lambda arrays: arrays.update(usual=np.array([{}, {}], object))),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_and_learned_anew(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learned(path := tmp_path / "load.npz")
    BROKEN[how](path)
    with caplog.at_level(logging.WARNING):
        outlook = Outlook(SMALL, path, BEGIN_S)
    assert [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    assert not knows(outlook)


def test_a_file_that_is_not_there_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Outlook(SMALL, tmp_path / "load.npz", BEGIN_S)
    assert not caplog.records


def test_a_full_disk_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "load.npz"
    is_full = True
    write_bytes = Path.write_bytes

    def on_disk(draft: Path, data: bytes) -> int:
        if is_full:
            raise OSError(28, "No space left on device")
        return write_bytes(draft, data)

    monkeypatch.setattr(Path, "write_bytes", on_disk)

    async def test() -> None:
        nonlocal is_full
        outlook = Outlook(SMALL, path, BEGIN_S)
        outlook.write_when_due(BEGIN_S + WRITE_S)
        async with asyncio.timeout(5):
            while "not written" not in caplog.text:
                await asyncio.sleep(0.001)
        is_full = False
        await write(outlook, BEGIN_S + 2 * WRITE_S, path)

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())


def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "load.npz"
    goes_on, writes = threading.Event(), []
    write_bytes = Path.write_bytes

    def on_disk(draft: Path, data: bytes) -> int:
        writes.append(draft)
        goes_on.wait(5)
        return write_bytes(draft, data)

    monkeypatch.setattr(Path, "write_bytes", on_disk)

    async def test() -> None:
        outlook = Outlook(SMALL, path, BEGIN_S)
        now_s = BEGIN_S
        for _ in range(5):
            now_s = follow(outlook, now_s + WRITE_S, 3)
            outlook.write_when_due(now_s)
            await asyncio.sleep(0.01)
        assert len(writes) == 1, "no second one beside the first"
        assert outlook.observe(LOAD, now_s), "forecasts go on"
        goes_on.set()
        await write(outlook, now_s, path)

    try:
        asyncio.run(test())
    finally:
        goes_on.set()


def test_a_draft_that_a_crash_left_is_of_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "load.npz"
    (tmp_path / "load.npz.1.draft").write_text("half of")
    learned(path)
    assert knows(Outlook(SMALL, path, BEGIN_S))


def renamed() -> Catalogue:
    """The small world with another workload in front and one less."""
    raw = SMALL.configuration.model_dump(mode="json")
    raw["workloads"] = [{**raw["workloads"][0], "name": "new"}, raw["workloads"][0]]
    return Catalogue(Configuration.model_validate(raw), "v2")


def test_other_rules_keep_what_was_learned_of_workloads_that_stay(tmp_path: Path) -> None:
    outlook = learned(tmp_path / "load.npz")
    outlook.follow(renamed())
    assert knows(outlook)
    told = outlook.observe(LOAD, BEGIN_S + 2e6)
    assert set(told) == {"new", "assistant"}
    assert told["new"].prompt_tokens == DEFAULT_PROMPT_TOKENS


def test_other_rules_take_what_was_learned_from_the_file_by_name(tmp_path: Path) -> None:
    learned(path := tmp_path / "load.npz")
    assert knows(Outlook(renamed(), path, BEGIN_S))
