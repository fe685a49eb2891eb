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
    return _read(raw, "prompt_tokens", "completion_tokens", "prompt_tokens_details")


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
    return _read(raw, "input_tokens", "output_tokens", "input_tokens_details")


def read_message(raw: object) -> Usage | None:
    """As the Messages API writes it, where `input_tokens` leaves out what the cache was read for
    or written to."""
    uncached = _read(raw, "input_tokens", "output_tokens")
    if uncached is None or not isinstance(raw, dict):
        return None
    read = _count(raw.get("cache_read_input_tokens")) or 0
    written = _count(raw.get("cache_creation_input_tokens")) or 0
    return Usage(uncached.prompt_tokens + read + written, uncached.completion_tokens, read)


def _read(
    raw: object, prompt_name: str, completion_name: str, details_name: str = ""
) -> Usage | None:
    """Without the name of details nothing counts as cached."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = _count(raw.get(prompt_name)), _count(raw.get(completion_name))
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, _cached(raw.get(details_name)))


def _cached(details: object) -> int:
    return (_count(details.get("cached_tokens")) or 0) if isinstance(details, dict) else 0


def _count(raw: object) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < LARGEST:
        return raw
    return None
