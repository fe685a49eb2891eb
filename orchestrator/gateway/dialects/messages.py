"""Anthropic's Messages API."""

import re
from typing import Any

import orjson

from orchestrator.gateway import answers, usage
from orchestrator.gateway.dialects.dialect import Asked, Dialect
from orchestrator.gateway.dialects.fields import flag, tokens
from orchestrator.gateway.dialects.named_reader import NamedReader
from orchestrator.gateway.dialects.token import Shape
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.sse import EventKind, typed
from orchestrator.gateway.usage import NOTHING, Usage

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_SAYS_NOTHING = frozenset({"message_start", "content_block_stop", "ping"})


def error_body(error: ApiError) -> bytes:
    """`details.error_code` is where Anthropic's clients look for a code."""
    other = "invalid_request_error" if error.status < 500 else "api_error"
    return orjson.dumps(
        {
            "type": "error",
            "error": {
                "type": _ERROR_TYPES.get(error.status, other),
                "message": error.message,
                "details": {"error_code": error.code},
            },
        }
    )


class MessagesReader(NamedReader):
    shape = Shape(b'"delta":{"type":"text_delta","text":"', re.compile(rb'"\},"index":\d+\}\n\n'))

    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None
        self._prompt: Usage | None = None
        """As the beginning of the stream tells it."""

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def counted(self) -> Usage:
        prompt = self._prompt or NOTHING
        return Usage(prompt.prompt_tokens, self._content_events, prompt.cached_tokens)

    def closing(self) -> bytes:
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    def interruption(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _kind(self, name: str, value: dict[str, Any]) -> EventKind:
        if name == "message_start":
            self._prompt = usage.read_message(typed(value.get("message"), dict).get("usage"))
        elif name == "message_delta":
            self._usage = usage.read_message(self._whole(value.get("usage")))
            self.finished = bool(typed(value.get("delta"), dict).get("stop_reason"))
        elif name == "message_stop":
            return EventKind.DONE
        elif name == "content_block_start":
            block = typed(value.get("content_block"), dict)
            begun = {k: v for k, v in block.items() if k not in ("type", "citations")}
            return EventKind.CONTENT if any(begun.values()) else EventKind.PREAMBLE
        return EventKind.PREAMBLE if name in _SAYS_NOTHING else EventKind.CONTENT

    def _whole(self, raw: object) -> object:
        """The end of a stream may leave out what its beginning has told."""
        if not isinstance(raw, dict) or self._prompt is None or "input_tokens" in raw:
            return raw
        fresh = self._prompt.prompt_tokens - self._prompt.cached_tokens
        known = {"input_tokens": fresh, "cache_read_input_tokens": self._prompt.cached_tokens}
        return known | raw


class _Anthropic(Dialect):
    name = "messages"

    def error_body(self, error: ApiError) -> bytes:
        return error_body(error)


class Messages(_Anthropic):
    upstream_path = "/v1/messages"
    needs = (("messages", "max_tokens"),)

    def asked(self, body: dict[str, Any]) -> Asked:
        return Asked(stream=flag(body, "stream"), max_tokens=tokens(body, "max_tokens"))

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        return usage.read_message(answer.get("usage"))

    def answer(self) -> answers.Answer:
        return answers.MessageAnswer()

    def reader(self, asked: Asked, vllm: bool) -> MessagesReader:
        return MessagesReader()


class CountTokens(_Anthropic):
    upstream_path = "/v1/messages/count_tokens"
    needs = (("messages",),)
    uses_gpu = False

    def asked(self, body: dict[str, Any]) -> Asked:
        return Asked()

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        """Counting takes no place on a GPU."""
        return NOTHING
