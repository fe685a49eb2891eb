"""What an answer says, from its stream or its body, for its conversation to be known by."""

from contextlib import suppress
from typing import Any

import orjson

from orchestrator.sessions.turns import turns


class Answer:
    """Takes chunks of a stream, or one whole body. What has no known shape is left out."""

    def __init__(self) -> None:
        self._messages: dict[int, dict[str, Any]] = {}
        """By the number of the choice."""

    def take_event(self, event: bytes) -> None:
        with suppress(orjson.JSONDecodeError):
            self.take(orjson.loads(event.removeprefix(b"data: ")))

    def take(self, chunk: object) -> None:
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            number = choice.get("index")
            if isinstance(said, dict):
                self._add(number if isinstance(number, int) else 0, said)

    def texts(self) -> list[str]:
        """One for each choice, as its client will send it again."""
        messages = [
            {"role": "assistant", **message, "tool_calls": list(message["tool_calls"].values())}
            for _, message in sorted(self._messages.items())
        ]
        return [turn.text for turn in turns({"messages": messages}) if turn.text]

    def _add(self, number: int, said: dict[str, Any]) -> None:
        message = self._messages.setdefault(number, {"content": "", "tool_calls": {}})
        content = said.get("content")
        message["content"] += content if isinstance(content, str) else ""
        calls = said.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            known = message["tool_calls"].setdefault(call.get("index", position), {"function": {}})
            for field in ("name", "arguments"):
                part = function.get(field)
                if isinstance(part, str):
                    known["function"][field] = known["function"].get(field, "") + part
