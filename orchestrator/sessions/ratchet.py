"""The ratchet: a conversation once raised stays raised."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config.data_class import DataClass
from orchestrator.sessions.fingerprint import Fingerprints, Hasher
from orchestrator.sessions.store import SessionStore
from orchestrator.sessions.turns import Turn, turns

COMMON_BITS = 22
COMMON = 3
"""Text that so many requests have had below any raised class is a template, not a secret."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's place in its conversation."""

    turns: Sequence[Turn]
    identity: Fingerprints
    """Of the session's id, and of the history up to each answer."""
    texts: Fingerprints
    """Of all that was said."""
    data_class: DataClass
    """The highest class that any part of it has had."""


class Ratchet:
    """One for each gateway, over a store that they share."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Raises SessionsUnavailable."""
        self._store = SessionStore(path)
        self._hasher = Hasher(key)
        self._common = np.zeros(1 << COMMON_BITS, np.uint8)

    def close(self) -> None:
        self._store.close()

    def recognize(self, workload: str, session_id: str, body: dict[str, Any]) -> Conversation:
        """Raises SessionsUnavailable."""
        said = turns(body)
        identity = self._hasher.history(said)
        if session_id:
            identity = np.concatenate([identity, self._hasher.name(workload, session_id)])
        texts = self._hasher.texts(said)
        highest = self._store.highest(np.concatenate([identity, texts]))
        return Conversation(said, identity, texts, highest)

    def keep(self, conversation: Conversation, data_class: DataClass) -> None:
        """Remembers it as this sensitive, before its answer begins: by then whatever comes next is
        recognized by every gateway. Raises SessionsUnavailable."""
        fresh = conversation.texts[self._common[_slots(conversation.texts)] < COMMON]
        self._store.add(np.concatenate([conversation.identity, fresh]), data_class)

    def keep_answer(self, conversation: Conversation, answer: str, data_class: DataClass) -> None:
        """Remembers the answer too, before its end is sent. Raises SessionsUnavailable."""
        turn = Turn("assistant", answer)
        history = self._hasher.history([*conversation.turns, turn])[-1:]
        self._store.add(np.concatenate([history, self._hasher.texts([turn])]), data_class)

    def seen_unraised(self, conversation: Conversation) -> None:
        """Counts what it says towards what everybody says."""
        slots = _slots(conversation.texts)
        self._common[slots] = np.minimum(self._common[slots], COMMON - 1) + 1


def _slots(fingerprints: Fingerprints) -> Fingerprints:
    return fingerprints >> np.uint64(64 - COMMON_BITS)
