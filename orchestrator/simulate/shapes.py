"""The shapes of what vLLM answers: whole, and as the events of a stream."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

FINGERPRINT = "vllm-simulated"


class Shape(ABC):
    """One answer. `body` is its request's, as parsed."""

    limits: ClassVar[tuple[str, ...]] = ("max_tokens",)
    prefix: ClassVar[str] = ""

    def __init__(self, model: str, given_id: str, body: dict[str, Any], prompt_tokens: int) -> None:
        self.model = model
        self.id = f"{self.prefix}{given_id}"
        self.body = body
        self.prompt_tokens = prompt_tokens
        self.choices = 1

    @abstractmethod
    def whole(self, text: str, produced: int) -> dict[str, Any]: ...

    @abstractmethod
    def opening(self) -> Iterator[bytes]: ...

    @abstractmethod
    def token(self, text: str, produced: int, last: bool) -> Iterator[bytes]:
        """`produced`: tokens with this one."""

    @abstractmethod
    def closing(self, text: str, produced: int, with_usage: bool) -> Iterator[bytes]: ...

    def failure(self, message: str) -> bytes:
        """The event of an engine that dies in a stream; none where vLLM only breaks off."""
        error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return data({"error": error})


class _Choices(Shape):
    chunk: ClassVar[str]
    details: ClassVar[dict[str, Any]] = {}

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.choices = int(self.body.get("n") or 1)
        options = self.body.get("stream_options") or {}
        self._tells_usage = bool(options.get("include_usage"))
        self._tells_throughout = self._tells_usage and bool(options.get("continuous_usage_stats"))

    def usage(self, produced: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + produced,
            "completion_tokens": produced,
        }

    def envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
        }

    def chunk_of(self, choice: dict[str, Any], produced: int, **more: Any) -> bytes:
        value = self.envelope(self.chunk, [choice])
        if self._tells_throughout:
            value["usage"] = self.usage(produced) | self.details
        return data(value | more)

    def closing(self, text: str, produced: int, with_usage: bool) -> Iterator[bytes]:
        if self._tells_usage and with_usage:
            usage = {"usage": self.usage(produced * self.choices)}
            yield data(self.envelope(self.chunk, []) | usage | {"system_fingerprint": FINGERPRINT})
        yield b"data: [DONE]\n\n"


class Chat(_Choices):
    limits = ("max_completion_tokens", "max_tokens")
    prefix = "chatcmpl-"
    chunk = "chat.completion.chunk"
    details: ClassVar[dict[str, Any]] = {"completion_tokens_details": None}

    def whole(self, text: str, produced: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None, "reasoning": None}
        choices = [
            {"index": i, "message": message, "logprobs": None, "finish_reason": "length"}
            for i in range(self.choices)
        ]
        usage = self.usage(produced * self.choices) | {"prompt_tokens_details": None}
        return self.envelope("chat.completion", choices) | {"usage": usage}

    def opening(self) -> Iterator[bytes]:
        for index in range(self.choices):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield self.chunk_of(choice, 0, prompt_token_ids=None, prompt_text=None)

    def token(self, text: str, produced: int, last: bool) -> Iterator[bytes]:
        for index in range(self.choices):
            choice = {
                "index": index,
                "delta": {"content": text},
                "logprobs": None,
                "finish_reason": "length" if last else None,
                **({"stop_reason": None} if last else {}),
                "token_ids": None,
            }
            yield self.chunk_of(choice, produced)


class Completion(_Choices):
    prefix = "cmpl-"
    chunk = "text_completion"

    def whole(self, text: str, produced: int) -> dict[str, Any]:
        choices = [self._choice(i, text, True) for i in range(self.choices)]
        usage = self.usage(produced * self.choices) | {"prompt_tokens_details": None}
        return self.envelope("text_completion", choices) | {"usage": usage}

    def opening(self) -> Iterator[bytes]:
        return iter(())

    def token(self, text: str, produced: int, last: bool) -> Iterator[bytes]:
        for index in range(self.choices):
            yield self.chunk_of(self._choice(index, text, last), produced)

    @staticmethod
    def _choice(index: int, text: str, last: bool) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": "length" if last else None,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }


class Message(Shape):
    """Of Anthropic's Messages API."""

    prefix = "chatcmpl-"

    def whole(self, text: str, produced: int) -> dict[str, Any]:
        return self._message(produced) | {
            "content": [{"type": "text", "text": text}],
            "stop_reason": "max_tokens",
        }

    def opening(self) -> Iterator[bytes]:
        message = self._message(0) | {"stop_sequence": None}
        yield named({"type": "message_start", "message": message})
        block = {"type": "text", "text": ""}
        yield named({"type": "content_block_start", "content_block": block, "index": 0})

    def token(self, text: str, produced: int, last: bool) -> Iterator[bytes]:
        delta = {"type": "text_delta", "text": text}
        yield named({"type": "content_block_delta", "delta": delta, "index": 0})

    def closing(self, text: str, produced: int, with_usage: bool) -> Iterator[bytes]:
        yield named({"type": "content_block_stop", "index": 0})
        end = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}
        yield named(end | ({"usage": self._usage(produced)} if with_usage else {}))
        yield named({"type": "message_stop"})

    def failure(self, message: str) -> bytes:
        return named({"type": "error", "error": {"type": "internal_error", "message": message}})

    def _message(self, produced: int) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self.model,
            "stop_reason": None,
            "usage": self._usage(produced),
        }

    def _usage(self, produced: int) -> dict[str, Any]:
        return {"input_tokens": self.prompt_tokens, "output_tokens": produced}


class Response(Shape):
    """Of OpenAI's Responses API."""

    limits = ("max_output_tokens",)
    prefix = "resp_"

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._number = 0
        self._item = {"item_id": "msg_simulated", "output_index": 0}

    def whole(self, text: str, produced: int) -> dict[str, Any]:
        return self._response("incomplete", [self._message(text)], self._usage(produced))

    def opening(self) -> Iterator[bytes]:
        begun = self._response("in_progress", [], None)
        yield self._event("created", response=begun)
        yield self._event("in_progress", response=begun)
        item = self._message("") | {"content": [], "status": "in_progress"}
        yield self._event("output_item.added", item=item, output_index=0)
        yield self._event("content_part.added", content_index=0, **self._item, part=self._part(""))

    def token(self, text: str, produced: int, last: bool) -> Iterator[bytes]:
        yield self._event(
            "output_text.delta", content_index=0, delta=text, logprobs=[], **self._item
        )

    def closing(self, text: str, produced: int, with_usage: bool) -> Iterator[bytes]:
        yield self._event("output_text.done", content_index=0, logprobs=[], text=text, **self._item)
        yield self._event("content_part.done", content_index=0, **self._item, part=self._part(text))
        yield self._event("output_item.done", item=self._message(text), output_index=0)
        usage = self._usage(produced) if with_usage else None
        response = self._response("incomplete", [self._message(text)], usage)
        yield self._event("completed", response=response)

    def failure(self, message: str) -> bytes:
        return b""

    def _event(self, kind: str, **fields: Any) -> bytes:
        value = fields | {"sequence_number": self._number, "type": f"response.{kind}"}
        self._number += 1
        return named(dict(sorted(value.items())))

    def _response(
        self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "created_at": int(time.time()),
            "incomplete_details": reason,
            "instructions": self.body.get("instructions"),
            "metadata": self.body.get("metadata"),
            "model": self.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "service_tier": "auto",
            "status": status,
            "truncation": "disabled",
            "usage": usage,
        }

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "id": "msg_simulated",
            "content": [self._part(text)],
            "role": "assistant",
            "status": "completed",
            "type": "message",
        }

    @staticmethod
    def _part(text: str) -> dict[str, Any]:
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": []}

    def _usage(self, produced: int) -> dict[str, Any]:
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": produced,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + produced,
        }


def data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, separators=(',', ':'), ensure_ascii=False)}\n\n".encode()


def named(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + data(value)
