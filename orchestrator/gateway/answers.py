"""What an answer says, from its stream or its body, for its conversation to be known by."""

from contextlib import suppress
from typing import Any

import orjson

from orchestrator.gateway.sse import fields
from orchestrator.sessions.turns import Turn, turns


class Answer:
    """Takes what is passed on of a stream, or one whole body. What has no known shape is left
    out; of this class, everything is: its answers say nothing of their own."""

    def take_events(self, events: bytes) -> None:
        for event in events.split(b"\n\n"):
            with suppress(orjson.JSONDecodeError):
                self.take(orjson.loads(fields(event)[1]))

    def take(self, said: object) -> None:
        """A chunk as parsed, or a whole body."""

    def turns(self) -> list[Turn]:
        """As the client will send it again."""
        return []


class ChoicesAnswer(Answer):
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


class MessageAnswer(Answer):
    """Of the Messages API."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        """By their place."""

    def take(self, said: object) -> None:
        if not isinstance(said, dict):
            return
        content = said.get("content")
        if said.get("type") == "message" and isinstance(content, list):
            self._blocks = {n: block for n, block in enumerate(content) if isinstance(block, dict)}
        place = said.get("index")
        if not isinstance(place, int):
            return
        block = said.get("content_block")
        if isinstance(block, dict):
            self._blocks[place] = {k: v for k, v in block.items() if v != {}}
        delta = said.get("delta")
        if isinstance(delta, dict):
            known = self._blocks.setdefault(place, {"type": "text"})
            for name, part in delta.items():
                if isinstance(part, str) and name != "type":
                    name = "input" if name == "partial_json" else name
                    so_far = known.get(name)
                    known[name] = (so_far if isinstance(so_far, str) else "") + part

    def turns(self) -> list[Turn]:
        content = [block for _, block in sorted(self._blocks.items())]
        message = {"role": "assistant", "content": content}
        return [turn for turn in turns({"messages": [message]}) if turn.text or turn.aside]


class ResponsesAnswer(Answer):
    """Of the Responses API."""

    def __init__(self) -> None:
        self._items: dict[int, dict[str, Any]] = {}
        """By their place."""

    def take(self, said: object) -> None:
        if not isinstance(said, dict):
            return
        output = said.get("output")
        if isinstance(output, list):
            self._items = {n: item for n, item in enumerate(output) if isinstance(item, dict)}
        place, kind = said.get("output_index"), said.get("type")
        if not isinstance(place, int) or not isinstance(kind, str):
            return
        item, delta = said.get("item"), said.get("delta")
        if isinstance(item, dict):
            # Added with nothing in it yet, and done with all that it has.
            self._items[place] = item if kind.endswith(".done") else {"type": item.get("type")}
        elif isinstance(delta, str):
            known = self._items.setdefault(place, {})
            field = "arguments" if "arguments" in kind or "input" in kind else "content"
            if "reasoning" in kind:
                known["type"] = "reasoning"
            elif field == "arguments":
                known["type"] = "function_call"
            elif known.get("type") in (None, "message"):
                known |= {"type": "message", "role": "assistant"}
            so_far = known.get(field)
            known[field] = (so_far if isinstance(so_far, str) else "") + delta

    def turns(self) -> list[Turn]:
        items = [item for _, item in sorted(self._items.items())]
        return [turn for turn in turns({"input": items}) if turn.text or turn.aside]


class PromptAnswer(Answer):
    """Of detokenize: the text of the token ids that were sent, which could not be read."""

    def __init__(self) -> None:
        self._text = ""

    def take(self, said: object) -> None:
        text = said.get("prompt") if isinstance(said, dict) else None
        self._text = text if isinstance(text, str) else ""

    def turns(self) -> list[Turn]:
        return [Turn("assistant", self._text)] if self._text else []
