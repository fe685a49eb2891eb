"""The ratchet: a conversation once raised stays raised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.config.data_class import DataClass
from orchestrator.sessions.fingerprint import Hasher, Said, said_in
from orchestrator.sessions.store import SessionStore
from orchestrator.sessions.turns import SYSTEM, Turn, turns
from orchestrator.sessions.winnowing import Fingerprints, joined

COMMON_BITS = 22
COMMON = 3
"""Text that so many conversations have begun a turn with, unraised, is a template and no secret."""
FORGET_AFTER = 1 << (COMMON_BITS - 2)
"""Fingerprints counted until all counts are halved: the table must not fill up with rare ones."""

LATELY = 1 << 16
"""Requests that are known when they come again, as clients ask again that were refused."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's place in its conversation."""

    said: Sequence[Said]
    identity: Fingerprints
    """Of the session's id, and of the history up to each answer."""
    texts: Fingerprints
    """Of all that was said in it."""
    newest: Fingerprints
    """Of what was said since the last answer."""
    data_class: DataClass
    """The highest class that any part of it has had."""


class Ratchet:
    """One for each gateway, over a store that they share."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Raises SessionsUnavailable."""
        self._store = SessionStore(path)
        self._hasher = Hasher(key)
        self._common = np.zeros(1 << COMMON_BITS, np.uint8)
        self._counted = 0
        self._lately: dict[int, None] = {}
        """What was counted last, oldest first."""

    def close(self) -> None:
        self._store.close()

    def recognize(self, workload: str, session_id: str, body: dict[str, Any]) -> Conversation:
        """Raises SessionsUnavailable."""
        said = said_in(turns(body))
        # What the application says raises nobody, but it may quote somebody.
        own: list[Said] = []
        by_application: list[Said] = []
        answered = 0
        for turn in said:
            (by_application if turn.role in SYSTEM else own).append(turn)
            if turn.role == "assistant":
                answered = len(own)
        earlier, newest, quoted = self._hasher.texts(own[:answered], own[answered:], by_application)
        identity = self._hasher.history(own[:answered])
        if session_id:
            identity = joined([identity, self._hasher.name(workload, session_id)])
        texts = joined([earlier, newest])
        highest = self._store.highest(joined([identity, texts, quoted]))
        return Conversation(said, identity, texts, newest, highest)

    def keep(self, conversation: Conversation, data_class: DataClass) -> None:
        """Remembers it as this sensitive, before its answer begins: by then whatever comes next is
        recognized by every gateway. Raises SessionsUnavailable."""
        rare = conversation.texts[self._common.take(_slots(conversation.texts)) < COMMON]
        self._store.add(joined([conversation.identity, rare]), data_class)

    def keep_answer(self, conversation: Conversation, answer: Turn, data_class: DataClass) -> None:
        """Remembers the answer too, before its end is sent. Raises SessionsUnavailable."""
        answered = said_in([answer])
        history = self._hasher.history([*conversation.said, *answered])[-1:]
        self._store.add(joined([history, *self._hasher.texts(answered)]), data_class)

    def seen_unraised(self, conversation: Conversation) -> None:
        """Counts what it newly says towards what everybody says; what is asked again, once."""
        said = hash(conversation.newest.tobytes())
        if said in self._lately:
            return
        self._lately[said] = None
        if len(self._lately) > LATELY:
            del self._lately[next(iter(self._lately))]
        slots = _slots(conversation.newest)
        self._common[slots] = _ONE_MORE.take(self._common.take(slots))
        self._counted += len(slots)
        if self._counted > FORGET_AFTER:
            self._common >>= 1
            self._counted = 0


_ONE_MORE = np.array([*range(1, COMMON + 1), COMMON], np.uint8)


def _slots(fingerprints: Fingerprints) -> npt.NDArray[np.int64]:
    return (fingerprints >> np.uint64(64 - COMMON_BITS)).view(np.int64)
