"""What an answer says, from its stream or its body, for its conversation to be known by."""

from contextlib import suppress
from typing import Any

import orjson

from orchestrator.gateway.sse import fields
from orchestrator.sessions.turns import Turn, turns


class Answer:
    """Takes what is passed on of a stream, or one whole body. What has no known shape is left
    out; of this class, everything is: its answers say nothing of their own."""

    def take_event(self, event: bytes) -> None:
        with suppress(orjson.JSONDecodeError):
            self.take(orjson.loads(fields(event)[1]))

    def take(self, said: object) -> None:
        """A chunk as parsed, or a whole body."""

    def turns(self) -> list[Turn]:
        """As the client will send it again."""
        return []


class Choices(Answer):
    """Of chat and of completions."""

    def __init__(self) -> None:
        self._messages: dict[int, dict[str, Any]] = {}
        """By the number of the choice."""

    def take(self, said: object) -> None:
        choices = said.get("choices") if isinstance(said, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            number = choice.get("index")
            if isinstance(part, dict):
                self._add(number if isinstance(number, int) else 0, part)

    def turns(self) -> list[Turn]:
        """One for each choice."""
        messages = [
            {"role": "assistant", **message, "tool_calls": list(message["tool_calls"].values())}
            for _, message in sorted(self._messages.items())
        ]
        return [turn for turn in turns({"messages": messages}) if turn.text or turn.aside]

    def _add(self, number: int, said: dict[str, Any]) -> None:
        message = self._messages.setdefault(number, {"content": "", "tool_calls": {}})
        for field, part in said.items():
            if isinstance(part, str) and field not in ("role", "tool_calls"):
                message[field] = message.get(field, "") + part
        calls = said.get("tool_calls")
        for position, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            place = call.get("index")
            place = place if isinstance(place, int) else position
            known = message["tool_calls"].setdefault(place, {"function": {}})
            for field in ("name", "arguments"):
                part = function.get(field)
                if isinstance(part, str):
                    known["function"][field] = known["function"].get(field, "") + part
