"""What a request says, by the words that a simulated engine takes for tokens."""

import re
from typing import Any

CHAT_TEMPLATE_TOKENS = 3
"""What a chat template adds to each message."""
PROMPTS = ("prompt", "query", "queries", "documents", "items", "text_1", "text_2")
_LAST_TOKEN = re.compile(r" t(\d+)$")


def count_tokens(body: dict[str, Any]) -> int:
    """Words of the prompt, and of every message with what a chat template adds. Raises KeyError
    for a body without either, TypeError for a message that is none."""
    if "messages" in body:
        total = _words(body.get("system"))
        for message in body["messages"]:
            content = message["content"]
            if not isinstance(content, str | list | None):
                raise TypeError("'content' is a string or a list")
            total += _words(content) + CHAT_TEMPLATE_TOKENS
        return total
    if "input" in body:
        given = body["input"]
        chat = isinstance(given, list) and given and isinstance(given[0], dict)
        return _words(body.get("instructions")) + (
            sum(_words(item) + CHAT_TEMPLATE_TOKENS for item in given) if chat else _words(given)
        )
    found = [body[name] for name in PROMPTS if name in body]
    if not found:
        raise KeyError("prompt")
    return sum(map(_words, found))


def first_number(body: dict[str, Any]) -> int:
    """The number of the answer's first token: one after the last that an answer to be continued
    ends in."""
    given: Any = body.get("prompt")
    if body.get("continue_final_message"):
        given = body["messages"][-1]["content"]
    last = _LAST_TOKEN.search(_text(given))
    return int(last[1]) + 1 if last else 0


def _words(value: Any) -> int:
    return len(_text(value).split())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, dict):
        said = (value.get(name) for name in ("text", "content", "output", "arguments"))
        return " ".join(_text(part) for part in said if part is not None)
    return str(value)
