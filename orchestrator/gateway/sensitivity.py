"""How sensitive a request is: by its caller's word, its conversation and its content.

Every label can raise the class of the workload, and none can lower it. Whoever cannot tell says
restricted.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        """Writes in the order in which it is asked to: the event loop never waits for the disk."""

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()
        self._ratchet.close()

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

    def raises(self, labels: Labels, own: DataClass) -> bool:
        """Whether the request is above the workload's own class: then its conversation has to be
        kept before anything is sent, and its answer before its end is. Raises ApiError 503 when
        there is nothing to know it by again."""
        if labels.conversation is None:
            if max(labels.claimed, labels.content) > own:
                raise _unknowable()
            return False
        highest = labels.highest
        if highest <= own:
            if own <= DataClass.INTERNAL:
                self._ratchet.seen_unraised(labels.conversation)
            return False
        return True

    def remember(self, labels: Labels) -> Future[None]:
        """Begins to write what the conversation is. Raises ApiError 503 when nothing is written any
        more."""
        conversation = labels.conversation
        assert conversation is not None, "without one nothing is raised"
        return self._begun(lambda: self._ratchet.keep(conversation, labels.highest))

    def remember_answer(self, labels: Labels, answer: Sequence[Turn]) -> Future[None]:
        """As `remember`, what was answered."""
        conversation = labels.conversation
        assert conversation is not None, "without one nothing is raised"

        def write() -> None:
            for turn in answer:
                self._ratchet.keep_answer(conversation, turn, labels.highest)

        return self._begun(write)

    def _begun(self, write: Callable[[], None]) -> Future[None]:
        try:
            return self._writer.submit(write)
        except RuntimeError:
            raise _unknowable() from None


async def written(begun: Future[None]) -> None:
    """It is written also when the client goes away meanwhile. Raises ApiError 503 when it cannot
    be, since the conversation's next turn would not be known."""
    try:
        await asyncio.shield(asyncio.wrap_future(begun))
    except SessionsUnavailable:
        raise _unknowable() from None


def _unknowable() -> Exception:
    return unavailable(
        "sessions_unavailable",
        "The sensitivity of this conversation cannot be kept now, so it is not answered.",
    )
