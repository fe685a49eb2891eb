"""What was said in a request: who said it, and the text, whatever the endpoint's shape.

One conversation has the same turns in every dialect, so that it is known again wherever it goes
on: an assistant's text and then the arguments of its calls are one turn, each result of a tool is
one of its own, and reasoning stands aside.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

SYSTEM = frozenset({"system", "developer"})
"""Roles whose text belongs to the application and not to one conversation."""
ASKED = (
    "prompt",
    "suffix",
    "query",
    "queries",
    "items",
    "text_1",
    "text_2",
    "data_1",
    "data_2",
)
"""Fields whose strings are said by the user, beside or instead of messages."""
_ASKED_ALONE = (*ASKED, "documents")
_ELSEWHERE = frozenset({"messages", "model", "input", *ASKED})
_ELSEWHERE_ALONE = _ELSEWHERE | {"documents"}
NAMES = frozenset(
    {
        "role",
        "tool_call_id",
        "tool_use_id",
        "call_id",
        "name",
        "type",
        "id",
        "item_id",
        "status",
        "signature",
        "url",
        "image_url",
        "file_url",
        "file_id",
        "file_data",
        "media_type",
        "encrypted_content",
    }
)
"""Fields whose strings name things, or hold what is no text."""
_PLAIN = frozenset({"role", "content"})
_CALLS = frozenset({"function_call", "custom_tool_call", "mcp_call", "tool_use"})
_ARGUMENTS = ("arguments", "input")
_ASIDE = frozenset({"reasoning", "thinking", "redacted_thinking"})
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output", "tool_result"})


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str
    """Its content and its tool calls: what a client sends again."""
    aside: str = ""
    """The rest, such as reasoning, which a client may send again or not."""


@dataclass(slots=True)
class _Assistant:
    """A turn that comes in parts."""

    said: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    def turn(self) -> Turn:
        return Turn("assistant", "\n".join(self.said + self.called), "\n".join(self.aside))


def turns(body: dict[str, Any]) -> list[Turn]:
    """In their order, what belongs to nobody in particular first, as said by the system."""
    messages = body.get("messages")
    # Beside messages, documents are what the application found for them.
    asked, elsewhere = (ASKED, _ELSEWHERE) if messages else (_ASKED_ALONE, _ELSEWHERE_ALONE)
    rest = {k: v for k, v in body.items() if k not in elsewhere}
    found = [Turn("system", text) for text in _strings(rest)]
    for message in _flat(messages):
        found += _said(message)
    given = body.get("input")
    if isinstance(given, list) and any(isinstance(item, dict) for item in given):
        found += _items(given)
    else:
        found += (Turn("user", text) for text in _strings(given))
    for name in asked:
        if name in body:
            found += (Turn("user", text) for text in _strings(body[name]))
    return found


def _flat(messages: Any) -> Iterator[dict[str, Any]]:
    """A conversation, or several."""
    for message in messages if isinstance(messages, list) else ():
        for one in message if isinstance(message, list) else (message,):
            if isinstance(one, dict):
                yield one


def _said(message: dict[str, Any]) -> Iterator[Turn]:
    """By one message: several turns where it holds results of tools."""
    role, content = str(message.get("role", "user")), message.get("content")
    if isinstance(content, str) and message.keys() <= _PLAIN:
        yield Turn(role, content)
        return
    said: list[str] = []
    called = list(_calls(message.get("tool_calls")))
    aside: list[str] = []
    has_results = False
    for part in content if isinstance(content, list) else (content,):
        kind = _type(part)
        if kind in _RESULTS:
            has_results = True
            yield Turn("tool", "\n".join(_strings(part)))
        elif kind in _CALLS:
            called += _calls([part])
        elif kind in _ASIDE:
            aside += _strings(part)
        else:
            said += _strings(part)
    aside += _strings({k: v for k, v in message.items() if k not in ("content", "tool_calls")})
    if said or called or aside or not has_results:
        yield Turn(role, "\n".join(said + called), "\n".join(aside))


def _items(items: Iterable[Any]) -> Iterator[Turn]:
    """By the items of the Responses API, where one turn of the assistant may be several."""
    open_turn: _Assistant | None = None
    for item in items:
        kind = _type(item)
        is_message = kind in (None, "message")
        by_assistant = isinstance(item, dict) and (
            (is_message and item.get("role") == "assistant") or kind in _CALLS or kind in _ASIDE
        )
        if open_turn and (not by_assistant or (is_message and open_turn.said)):
            yield open_turn.turn()
            open_turn = None
        if by_assistant:
            open_turn = open_turn or _Assistant()
            if kind in _CALLS:
                open_turn.called += _calls([item])
            elif kind in _ASIDE:
                open_turn.aside += _strings(item)
            else:
                for turn in _said(item):
                    open_turn.said.append(turn.text)
                    open_turn.aside += [turn.aside] if turn.aside else []
        elif not isinstance(item, dict):
            for text in _strings(item):
                yield Turn("user", text)
        elif is_message:
            yield from _said(item)
        else:
            # Of what else there is, a user may quote whatever a tool has said.
            yield Turn("tool", "\n".join(_strings(item)))
    if open_turn:
        yield open_turn.turn()


def _type(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def _calls(calls: Any) -> Iterator[str]:
    """What tools were called with, in one writing: some endpoints have it as JSON, some as text
    of JSON."""
    for call in calls if isinstance(calls, list) else (calls,):
        if not isinstance(call, dict):
            yield from _strings(call)
            continue
        inner = call.get("function")
        call = {**call, **inner} if isinstance(inner, dict) else call
        for name in _ARGUMENTS:
            if call.get(name):
                yield _as_json(call[name])
        others = {k: v for k, v in call.items() if k not in (*_ARGUMENTS, "function")}
        yield from _strings(others)


def _as_json(value: Any) -> str:
    try:
        return orjson.dumps(orjson.loads(value) if isinstance(value, str) else value).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return value if isinstance(value, str) else "\n".join(_strings(value))


def _strings(value: Any) -> Iterator[str]:
    """Every string below a value, but for those that name things."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, str):
            if value:
                yield value
        elif isinstance(value, list):
            left.extend(reversed(value))
        elif isinstance(value, dict):
            skipped = NAMES | {"data"} if value.get("type") == "base64" else NAMES
            left.extend(value[name] for name in reversed(value) if name not in skipped)
