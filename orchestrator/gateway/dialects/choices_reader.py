"""Reads the chunks of chat and completion streams, with the least work per token."""

import re
from io import StringIO
from typing import Any

import orjson

from orchestrator.gateway import usage
from orchestrator.gateway.dialects.dialect import Asked, Reader
from orchestrator.gateway.dialects.token import USAGE, Shape, Token
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.sse import EventKind, fields, json_object, typed
from orchestrator.gateway.upstream import UpstreamFailed
from orchestrator.gateway.usage import Usage

_AFTER = rb',"logprobs":null,"finish_reason":null(?:,"[a-z_]+":null)*\}\]' + USAGE + rb"\}\n\n"
_ABOUT = ("id", "object", "created", "model")
CHAT = Shape(b'"delta":{"content":"', re.compile(rb'"\}' + _AFTER))
COMPLETION = Shape(b'"text":"', re.compile(rb'"' + _AFTER))


class ChoicesReader(Reader):
    def __init__(self, shape: Shape, asked: Asked, vllm: bool) -> None:
        self.shape, self.asked, self.vllm = shape, asked, vllm
        self._choices = asked.choices
        self._choices_of_a_prompt = asked.choices // asked.prompts
        self._shows_last = asked.wants_usage
        # Engines that were not asked for it throughout may tell it once, beside the last choice.
        self._shows_throughout = asked.wants_usage_throughout or (asked.wants_usage and not vllm)
        self._token = Token(shape)
        self._text = StringIO()
        self._content_events = 0
        self._told: dict[int, Usage] = {}
        """By choice, which vLLM counts apart until the end."""
        self._newest = b""
        """An event with usage that was not parsed."""
        self._last_told = 0
        """Tokens of the one choice, as told with its newest text."""
        self._total: Usage | None = None
        self._ended: set[int] = set()
        self.about: dict[str, Any] = {}
        """What every chunk says of the answer."""
        self.only_text = True
        """Whether all that was said is the text of one choice."""

    @property
    def text(self) -> str:
        """What the one choice has said."""
        return self._text.getvalue()

    @property
    def counted(self) -> Usage:
        return Usage(0, self._content_events, 0)

    @property
    def used(self) -> Usage:
        """By the whole answer so far, as its client may be told."""
        return self.usage or self.counted

    @property
    def tokens(self) -> int:
        """Of the answer so far."""
        return self.used.completion_tokens

    @property
    def usage(self) -> Usage | None:
        if self._total is not None:
            return self._total
        if self._newest:
            self._tell(0, json_object(fields(self._newest)[1]).get("usage"))
            self._newest = b""
        if not self._told:
            return None
        prompts: dict[int, int] = {}
        for number, told in self._told.items():
            prompt = number // self._choices_of_a_prompt
            prompts[prompt] = max(prompts.get(prompt, 0), told.prompt_tokens)
        generated = sum(told.completion_tokens for told in self._told.values())
        return Usage(sum(prompts.values()), generated, 0)

    def read(self, event: bytes) -> tuple[EventKind, bytes]:
        passed_on, end = self._tokens(event, 0)
        return (EventKind.CONTENT, passed_on) if end else self._read(event)

    def read_tokens(self, events: bytes, start: int) -> tuple[bytes, int]:
        return self._tokens(events, start)

    def _tokens(self, events: bytes, start: int) -> tuple[bytes, int]:
        """As `read_tokens`, and as they came but for their usage."""
        shown: list[bytes] = []
        begin = place = start
        for text, after, end in self._token.row(events, start):
            if after is not None:
                told = int(after["told"] or 0)
                if told:
                    if told <= self._last_told:
                        # Read alone, it fails the attempt.
                        break
                    self._last_told = told
                self._newest = events[place:end]
                if not self._shows_throughout:
                    shown += (events[begin : after.start("usage")], b"}\n\n")
                    begin = end
            self._content_events += 1
            self._text.write(text)
            place = end
        return b"".join((*shown, events[begin:place])), place

    def closing(self) -> bytes:
        end = b"data: [DONE]\n\n"
        if not self._shows_last or self._total is not None:
            return end
        chunk = self.about | {
            "choices": [],
            "usage": usage.write(self.used),
            "usage_source": "engine" if self.usage else "counted",
        }
        return b"data: " + orjson.dumps(chunk) + b"\n\n" + end

    def interruption(self, error: ApiError) -> bytes:
        return error.event()

    def _read(self, event: bytes) -> tuple[EventKind, bytes]:
        name, data = fields(event)
        if name == b"error":
            return EventKind.ERROR, b""
        if not data:
            return EventKind.PREAMBLE, b""
        if data == b"[DONE]":
            return EventKind.DONE, b"data: [DONE]\n\n"
        chunk = json_object(data)
        if chunk.get("error"):
            return EventKind.ERROR, b""
        choices = [typed(choice, dict) for choice in typed(chunk.get("choices"), list)]
        told = chunk.get("usage")
        if choices and _text(choices[0]) and (used := usage.read(told)) is not None:
            self._go_on(used.completion_tokens)
        kind = self._take_choices(choices)
        if not self.about:
            self.about = {name: chunk[name] for name in _ABOUT if name in chunk}
        passed_on = b"data: " + data + b"\n\n"
        if choices:
            if told is not None:
                self._newest = b""
                self._tell(_number(choices[0]), told)
            shown = self._shows_throughout
        else:
            if told is not None:
                kind = EventKind.USAGE
                self._total = usage.read(told)
            shown = self._shows_last
        if kind is EventKind.CONTENT:
            self._content_events += 1
            if self._choices == 1 and passed_on == event:
                self._token.learn(event)
        if "usage" in chunk and not shown:
            if kind is EventKind.USAGE:
                return kind, b""
            del chunk["usage"]
            passed_on = b"data: " + orjson.dumps(chunk) + b"\n\n"
        return kind, passed_on

    def _go_on(self, told: int) -> None:
        """Text that comes with no new token came before; with none at all it is the prompt's."""
        if self._choices == 1 and told:
            if told <= self._last_told:
                raise UpstreamFailed("repeated")
            self._last_told = told

    def _take_choices(self, choices: list[dict[str, Any]]) -> EventKind:
        kind = EventKind.PREAMBLE
        for choice in choices:
            if choice.keys().isdisjoint(("delta", "text")):
                # Clients rely on it.
                raise UpstreamFailed("malformed")
            said = typed(choice.get("delta"), dict)
            text = _text(choice)
            others = any(v for k, v in said.items() if k not in ("role", "content"))
            if choice.get("finish_reason"):
                self._ended.add(_number(choice))
                self.finished = len(self._ended) >= self._choices
            if text or others or choice.get("finish_reason"):
                kind = EventKind.CONTENT
            if isinstance(text, str):
                self._text.write(text)
            if others or (text and not isinstance(text, str)) or _number(choice):
                self.only_text = False
        return kind

    def _tell(self, number: int, raw: object) -> None:
        told = usage.read(raw)
        if told is not None and number < self._choices:
            self._told[number] = told


def _text(choice: dict[str, Any]) -> Any:
    return typed(choice.get("delta"), dict).get("content") or choice.get("text")


def _number(choice: dict[str, Any]) -> int:
    number = choice.get("index")
    return number if isinstance(number, int) and number >= 0 else 0
