"""What an answer says, from its stream or its body, for its conversation to be known by."""

from contextlib import suppress
from typing import Any

import orjson

from orchestrator.sessions.turns import Turn, turns


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

    def turns(self) -> list[Turn]:
        """One for each choice, as its client will send it again."""
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
