"""What was said in a request: who said it, and the text, whatever the endpoint's shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SYSTEM = frozenset({"system", "developer"})
"""Roles whose text belongs to the application and not to one conversation."""


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str


def turns(body: dict[str, Any]) -> list[Turn]:
    """In their order. What has no known shape is left out; the classifier reads it all the same."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return [
            Turn(str(message.get("role", "user")), "\n".join(_strings(message)))
            for message in messages
            if isinstance(message, dict)
        ]
    for field in ("prompt", "input"):
        if field in body:
            return [Turn("user", text) for text in _strings({field: body[field]})]
    return []


def _strings(message: dict[str, Any]) -> Iterator[str]:
    """Every string below a message but its role and what names things: content, parts, tool calls
    with their arguments, results."""
    left: list[Any] = [
        value for name, value in message.items() if name not in ("role", "tool_call_id", "name")
    ]
    left.reverse()
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left.extend(reversed(value))
        elif isinstance(value, dict):
            left.extend(
                value[name] for name in reversed(value) if name not in ("type", "id", "url")
            )
