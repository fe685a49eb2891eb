"""Token counts as an engine reports them."""

from dataclasses import dataclass

LARGEST = 2**53
"""Below it every count is exact, in JSON and in sums of floats too."""


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def read(raw: object) -> Usage | None:
    """None for what cannot be counted with: then nobody is charged by it."""
    if not isinstance(raw, dict):
        return None
    prompt, completion = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = raw.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, cached or 0)


def _count(raw: object) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < LARGEST:
        return raw
    return None
