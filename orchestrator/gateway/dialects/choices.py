"""Chat and text completions: answers made of choices."""

from typing import Any

from orchestrator.gateway import answers, usage
from orchestrator.gateway.dialects.choices_reader import CHAT, COMPLETION, ChoicesReader
from orchestrator.gateway.dialects.dialect import Asked, Dialect
from orchestrator.gateway.dialects.fields import choices, flag, options, tokens
from orchestrator.gateway.dialects.token import Shape
from orchestrator.gateway.usage import Usage


class _Choices(Dialect):
    shape: Shape
    limits: tuple[str, ...] = ("max_tokens",)
    """Fields with the most tokens of a choice, the one that counts first."""
    least_tokens = 1

    def asked(self, body: dict[str, Any]) -> Asked:
        stream = flag(body, "stream")
        wanted = options(body, "stream_options") if stream else {}
        wants_usage = wanted.get("include_usage") is True
        prompts = self.prompts(body)
        return Asked(
            stream=stream,
            max_tokens=tokens(body, *self.limits, least=self.least_tokens),
            choices=choices(body) * prompts,
            prompts=prompts,
            wants_usage=wants_usage,
            wants_usage_throughout=wants_usage and wanted.get("continuous_usage_stats") is True,
        )

    def prompts(self, body: dict[str, Any]) -> int:
        return 1

    def engine_options(self, asked: Asked, body: dict[str, Any], vllm: bool) -> dict[str, Any]:
        """Usage is always asked for: of vLLM with every token, so that what a stream that breaks
        off has used is known. Other engines may refuse an option of vLLM's."""
        if not asked.stream:
            return {}
        wanted = options(body, "stream_options") | {"include_usage": True}
        if vllm:
            wanted["continuous_usage_stats"] = True
        return {"stream_options": wanted}

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        return usage.read(answer.get("usage"))

    def answer(self) -> answers.Answer:
        return answers.ChoicesAnswer()

    def reader(self, asked: Asked, vllm: bool) -> ChoicesReader:
        return ChoicesReader(self.shape, asked, vllm)


class Chat(_Choices):
    name = "chat"
    upstream_path = "/v1/chat/completions"
    needs = (("messages",),)
    shape = CHAT
    limits = ("max_completion_tokens", "max_tokens")


class Completions(_Choices):
    name = "completions"
    upstream_path = "/v1/completions"
    needs = (("prompt",),)
    shape = COMPLETION
    least_tokens = 0
    """With `echo`, none says how likely the prompt is."""

    def prompts(self, body: dict[str, Any]) -> int:
        """A list is one of prompts, unless it is one of token ids."""
        prompt = body["prompt"]
        if not isinstance(prompt, list):
            return 1
        return len(prompt) if isinstance(prompt[0], str | list) else 1
