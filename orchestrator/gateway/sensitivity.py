"""How sensitive a request is: by its caller's word, its conversation and its content.

Every label can raise the class of the workload, and none can lower it. Whoever cannot tell says
restricted.
"""

import logging
from dataclasses import dataclass
from typing import Any

from orchestrator.classify import Classification, Classifier
from orchestrator.config.data_class import DataClass
from orchestrator.gateway.errors import unavailable
from orchestrator.safe_log import without_text
from orchestrator.sessions.ratchet import Conversation, Ratchet
from orchestrator.sessions.store import SessionsUnavailable
from orchestrator.sessions.turns import Turn

log = logging.getLogger("orchestrator.gateway")


@dataclass(frozen=True, slots=True)
class Labels:
    claimed: DataClass
    """By the caller, in a header."""
    session: DataClass
    """The highest class that any part of the conversation has had."""
    classification: Classification
    conversation: Conversation | None
    """None while the sessions cannot be read."""

    @property
    def content(self) -> DataClass:
        """By the classifier."""
        return self.classification.data_class

    @property
    def highest(self) -> DataClass:
        return max(self.claimed, self.session, self.classification.data_class)


class Sensitivity:
    """Reads requests, from any thread, and remembers what they were."""

    def __init__(self, ratchet: Ratchet) -> None:
        self._ratchet = ratchet

    def read(
        self,
        classifier: Classifier,
        workload: str,
        claimed: DataClass,
        session_id: str,
        body: dict[str, Any],
    ) -> Labels:
        classification = classifier.classify(workload, body)
        try:
            conversation = self._ratchet.recognize(workload, session_id, body)
        except SessionsUnavailable as error:
            log.error(
                "sessions cannot be read, so every request is restricted: %s", without_text(error)
            )
            return Labels(claimed, DataClass.RESTRICTED, classification, None)
        return Labels(claimed, conversation.data_class, classification, conversation)

    def remember(self, labels: Labels, own: DataClass) -> bool:
        """Before anything is sent: a conversation above the workload's own class is kept as what
        it is. Returns whether its answer has to be kept too.

        Raises ApiError 503 when it cannot be kept, since its next turn would not be known.
        """
        if labels.conversation is None:
            if max(labels.claimed, labels.content) > own:
                raise _unknowable()
            return False
        highest = labels.highest
        if highest <= own:
            if own <= DataClass.INTERNAL:
                self._ratchet.seen_unraised(labels.conversation)
            return False
        try:
            self._ratchet.keep(labels.conversation, highest)
        except SessionsUnavailable:
            raise _unknowable() from None
        return True

    def remember_answer(self, labels: Labels, answer: Turn) -> None:
        """Before the end of the answer is sent. Raises ApiError 503 as `remember` does."""
        assert labels.conversation is not None
        try:
            self._ratchet.keep_answer(labels.conversation, answer, labels.highest)
        except SessionsUnavailable:
            raise _unknowable() from None


def _unknowable() -> Exception:
    return unavailable(
        "sessions_unavailable",
        "The sensitivity of this conversation cannot be kept now, so it is not answered.",
    )
