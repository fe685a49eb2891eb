"""What was said in a request: who said it, and the text, whatever the endpoint's shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SYSTEM = frozenset({"system", "developer"})
"""Roles whose text belongs to the application and not to one conversation."""
ASKED = ("prompt", "suffix", "input")
"""Fields whose strings are said by the user, beside or instead of messages."""
NAMES = frozenset({"role", "tool_call_id", "name", "type", "id", "url"})
"""Fields whose strings name things."""


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: str
    """Its content and its tool calls: what a client sends again."""
    aside: str = ""
    """The rest, such as reasoning, which a client may send again or not."""


def turns(body: dict[str, Any]) -> list[Turn]:
    """In their order, what belongs to nobody in particular first, as said by the system."""
    rest = {k: v for k, v in body.items() if k not in ("messages", "model", *ASKED)}
    found = [Turn("system", text) for text in _strings(rest)]
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            said = [message.get("content"), message.get("tool_calls")]
            aside = {k: v for k, v in message.items() if k not in ("content", "tool_calls")}
            found.append(
                Turn(
                    str(message.get("role", "user")),
                    "\n".join(_strings(said)),
                    "\n".join(_strings(aside)),
                )
            )
    for field in ASKED:
        found += (Turn("user", text) for text in _strings(body.get(field)))
    return found


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
            left.extend(value[name] for name in reversed(value) if name not in NAMES)
