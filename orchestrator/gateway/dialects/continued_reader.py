"""Reads the stream of a continuation, and makes its events part of the answer that it continues."""

import orjson

from orchestrator.gateway import usage
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.sse import EventKind, fields, json_object
from orchestrator.gateway.usage import Usage


class ContinuedReader(ChoicesReader):
    """`usage` and `counted` are those of the continuation's own attempt; what the client is told
    is the use of the whole answer."""

    def __init__(self, before: ChoicesReader, vllm: bool) -> None:
        """`before` has read the stream that broke off, or a continuation of it; `vllm`: whether
        this engine is told to be one."""
        super().__init__(before.shape, before.asked, vllm)
        self._text.write(before.text)
        self.about = before.about
        self._before = before.used
        self._head = b""
        """What comes before the text of a token, in the answer that is continued."""

    @property
    def used(self) -> Usage:
        return self._whole(super().used)

    def read_tokens(self, events: bytes, start: int) -> tuple[bytes, int]:
        passed_on, end = self._tokens(events, start)
        if not self._shows_throughout:
            return passed_on.replace(self._token.before, self._head), end
        rewritten = [self._rewritten(one + b"\n\n") for one in passed_on.split(b"\n\n")[:-1]]
        return b"".join(rewritten), end

    def read(self, event: bytes) -> tuple[EventKind, bytes]:
        token = self._token.before
        kind, passed_on = super().read(event)
        if kind is EventKind.PREAMBLE:
            # The answer has begun already.
            return kind, b""
        if not passed_on or kind is EventKind.DONE:
            return kind, passed_on
        if token and passed_on.startswith(token) and not self._shows_throughout:
            return kind, self._head + passed_on[len(token) :]
        rewritten = self._rewritten(passed_on)
        if self._token.before is not token:
            self._head = rewritten[: rewritten.find(self.shape.marker) + len(self.shape.marker)]
        return kind, rewritten

    def _rewritten(self, event: bytes) -> bytes:
        chunk = json_object(fields(event)[1]) | self.about
        for choice in chunk.get("choices") or ():
            if isinstance(choice.get("delta"), dict):
                choice["delta"].pop("role", None)
        if "usage" in chunk:
            told = usage.read(chunk["usage"])
            chunk["usage"] = told and usage.write(self._whole(told))
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _whole(self, rest: Usage) -> Usage:
        sent, prompt = self._before.completion_tokens, self._before.prompt_tokens
        # To the engine what was sent is prompt.
        prompt = prompt or max(rest.prompt_tokens - sent, 0)
        return Usage(prompt, sent + rest.completion_tokens, self._before.cached_tokens)
