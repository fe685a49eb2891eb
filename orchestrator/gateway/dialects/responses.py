"""OpenAI's Responses API, without what a replica would have to keep between requests."""

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
from orchestrator.gateway.usage import Usage

_MENDS = {
    "background": "Wait for the answer, or for its stream",
    "store": "Set 'store' to false",
    "previous_response_id": "Send the whole conversation in 'input'",
    "conversation": "Send the whole conversation in 'input'",
}
"""Fields that need an answer to be kept, and what to do without."""
_SAYS_NOTHING = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.incomplete"})
_FAILS = frozenset({"response.failed", "error"})


class ResponsesReader(NamedReader):
    shape = Shape(
        b'"delta":"',
        re.compile(
            rb'","item_id":"[\w-]+","logprobs":\[\],"output_index":\d+,"sequence_number":\d+,'
            rb'"type":"response\.output_text\.delta"\}\n\n'
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        return self._usage

    def closing(self) -> bytes:
        # What finishes it is its last event.
        return b""

    def interruption(self, error: ApiError) -> bytes:
        event = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": None,
            "sequence_number": self._events,
        }
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"

    def _kind(self, name: str, value: dict[str, Any]) -> EventKind:
        if name in _FAILS:
            return EventKind.ERROR
        if name in _ENDS:
            self.finished = True
            self._usage = usage.read_response(typed(value.get("response"), dict).get("usage"))
            return EventKind.DONE
        if name in _SAYS_NOTHING:
            return EventKind.PREAMBLE
        if name.endswith(".added"):
            # An item that is added names the tool that it calls, or says nothing yet.
            item = typed(value.get("item"), dict)
            return EventKind.CONTENT if item.get("name") else EventKind.PREAMBLE
        return EventKind.CONTENT


class Responses(Dialect):
    name = "responses"
    upstream_path = "/v1/responses"
    needs = (("input",),)

    def asked(self, body: dict[str, Any]) -> Asked:
        for name, mend in _MENDS.items():
            if body.get(name):
                raise ApiError(
                    400, "unsupported_field", f"Answers are not kept here. {mend}.", param=name
                )
        body["store"] = False
        return Asked(stream=flag(body, "stream"), max_tokens=tokens(body, "max_output_tokens"))

    def usage(self, answer: dict[str, Any]) -> Usage | None:
        return usage.read_response(answer.get("usage"))

    def answer(self) -> answers.Answer:
        return answers.ResponsesAnswer()

    def reader(self, asked: Asked, vllm: bool) -> ResponsesReader:
        return ResponsesReader()
