"""What a model's tokenizer makes of a text, and of tokens."""

from typing import Any

from orchestrator.gateway import answers
from orchestrator.gateway.dialects.dialect import Asked, Dialect
from orchestrator.gateway.usage import NOTHING, Usage


class Tokenize(Dialect):
    name = "tokenize"
    upstream_path = "/tokenize"
    needs: tuple[tuple[str, ...], ...] = (("prompt",), ("messages",))
    uses_gpu = False

    def asked(self, body: dict[str, Any]) -> Asked:
        return Asked()

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        """A tokenizer takes no place on a GPU."""
        return NOTHING


class Detokenize(Tokenize):
    upstream_path = "/detokenize"
    needs = (("tokens",),)

    def answer(self) -> answers.Answer:
        return answers.PromptAnswer()
