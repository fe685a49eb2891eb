"""What the gateway knows of an endpoint: how it is asked, answered, streamed and refused."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from orchestrator.gateway.answers import Answer
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.sse import EventKind
from orchestrator.gateway.usage import Usage


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request's body says of its answer."""

    stream: bool = False
    max_tokens: int = 0
    """The most that may be generated for one choice, 0 when the client leaves it to the engine."""
    choices: int = 1
    """Answers to the one request, to all of its prompts together."""
    prompts: int = 1
    wants_usage: bool = False
    """Whether the client asked for the usage of a stream, at its end."""
    wants_usage_throughout: bool = False
    """The same, in every event."""


class Reader(ABC):
    """Reads the stream of one attempt, event by event."""

    finished = False
    """Whether every choice has come to its end: then nothing that is said is missing."""

    @abstractmethod
    def read(self, event: bytes) -> tuple[EventKind, bytes]:
        """What an event is, and what of it is passed on. Raises UpstreamFailed for one that no
        engine should send."""

    @abstractmethod
    def read_tokens(self, events: bytes, start: int) -> tuple[bytes, int]:
        """What is passed on of the ordinary tokens in a row that begin there, all of them content,
        and where the next event begins: `start` where none does."""

    @property
    @abstractmethod
    def usage(self) -> Usage | None:
        """The engine's newest word on what the attempt has used so far."""

    @property
    @abstractmethod
    def counted(self) -> Usage:
        """The same as far as it can be told from the events, for engines that do not tell."""

    @abstractmethod
    def closing(self) -> bytes:
        """What ends a stream that is `finished`, where the upstream left its end out."""

    @abstractmethod
    def interruption(self, error: ApiError) -> bytes:
        """The last event of a stream that broke off."""


class Dialect(ABC):
    """An endpoint, without any state. One for each kind of body; several may share a name."""

    name: str
    """In scopes and in metrics."""
    upstream_path: str
    needs: tuple[tuple[str, ...], ...]
    """Fields that a body must have, in one of these combinations."""
    uses_gpu = True
    """Whether a model reads the prompt: else it is not charged for."""

    @abstractmethod
    def asked(self, body: dict[str, Any]) -> Asked:
        """Checks the fields that the gateway itself reads, and changes in the body what must not
        go upstream as it came. Raises ApiError 400."""

    def engine_options(self, asked: Asked, body: dict[str, Any], vllm: bool) -> dict[str, Any]:
        """Fields set for the engine: what is asked of it beyond what the client asked."""
        return {}

    @abstractmethod
    def usage(self, answer: dict[str, Any]) -> Usage | None:
        """Of a whole answer."""

    def answer(self) -> Answer:
        """Takes what is said, for its conversation to be known by."""
        return Answer()

    def reader(self, asked: Asked, vllm: bool) -> Reader:
        """For the stream of one attempt; `vllm`: as `engine_options` was told."""
        raise NotImplementedError(f"{self.name} has no streams")

    def error_body(self, error: ApiError) -> bytes:
        return error.body()
