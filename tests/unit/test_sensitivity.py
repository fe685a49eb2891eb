"""What is begun to be written is written, in its order, and after the end nothing is begun."""

import asyncio
import threading
from pathlib import Path

import pytest

from orchestrator.classify import Classification
from orchestrator.config.data_class import DataClass
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.sensitivity import Labels, Sensitivity, written
from orchestrator.sessions.ratchet import Conversation, Ratchet
from orchestrator.sessions.turns import Turn


@pytest.fixture
def ratchet(tmp_path: Path) -> Ratchet:
    return Ratchet(tmp_path / "sessions.sqlite", b"a key")


def labels(ratchet: Ratchet) -> Labels:
    conversation = ratchet.recognize("w", "s", {"messages": [{"role": "user", "content": "hi"}]})
    found = Classification(DataClass.RESTRICTED)
    return Labels(DataClass.PUBLIC, DataClass.PUBLIC, found, conversation)


def test_who_leaves_stops_no_write_and_writes_keep_their_order(
    ratchet: Ratchet, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, done = threading.Event(), list[str]()

    def keep(_: Ratchet, conversation: Conversation, data_class: DataClass) -> None:
        go_on.wait(20)
        done.append("conversation")

    def keep_answer(_: Ratchet, conversation: Conversation, turn: Turn, c: DataClass) -> None:
        done.append(turn.text)

    monkeypatch.setattr(Ratchet, "keep", keep)
    monkeypatch.setattr(Ratchet, "keep_answer", keep_answer)
    sensitivity, found = Sensitivity(ratchet), labels(ratchet)

    async def inside() -> None:
        answers = [[Turn("assistant", "one"), Turn("assistant", "two")], [Turn("assistant", "3")]]
        begun = [
            sensitivity.remember(found),
            *(sensitivity.remember_answer(found, answer) for answer in answers),
        ]
        waiting = [asyncio.create_task(written(one)) for one in begun]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        go_on.set()
        sensitivity.close()

    asyncio.run(inside())
    assert done == ["conversation", "one", "two", "3"]


def test_after_the_end_nothing_is_remembered_and_so_nothing_answered(ratchet: Ratchet) -> None:
    sensitivity, found = Sensitivity(ratchet), labels(ratchet)
    sensitivity.close()
    for begin in (
        lambda: sensitivity.remember(found),
        lambda: sensitivity.remember_answer(found, [Turn("assistant", "one")]),
    ):
        with pytest.raises(ApiError) as refused:
            begin()
        assert refused.value.code == "sessions_unavailable"
