"""Token counts as an engine reports them."""

from dataclasses import dataclass
from typing import Any

LARGEST = 2**53
"""Below it every count is exact, in JSON and in sums of floats too."""


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    """All of the prompt, the cached part included."""
    completion_tokens: int
    cached_tokens: int


NOTHING = Usage(0, 0, 0)


def read(raw: object) -> Usage | None:
    """As chat and completions write it. None for what cannot be counted with: then nobody is
    charged by it."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, _within(raw.get("prompt_tokens_details"), "cached_tokens"))


def write(usage: Usage) -> dict[str, Any]:
    """As chat and completions write it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def read_prompt(raw: object) -> Usage | None:
    """Where nothing is generated, and engines may leave that count out."""
    prompt = _count(raw.get("prompt_tokens")) if isinstance(raw, dict) else None
    return None if prompt is None else Usage(prompt, 0, 0)


def read_response(raw: object) -> Usage | None:
    """As the Responses API writes it."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, _within(raw.get("input_tokens_details"), "cached_tokens"))


def read_message(raw: object) -> Usage | None:
    """As the Messages API writes it, where `input_tokens` leaves out what the cache was read for
    or written to."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    if prompt is None or completion is None:
        return None
    read = _count(raw.get("cache_read_input_tokens")) or 0
    written = _count(raw.get("cache_creation_input_tokens")) or 0
    return Usage(prompt + read + written, completion, read)


def _within(details: object, name: str) -> int:
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _count(raw: object) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < LARGEST:
        return raw
    return None
