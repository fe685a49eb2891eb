"""Every string of a request's body, wherever it stands, and what cannot be read as text."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

_CONTENT_ELSEWHERE = frozenset(
    {
        "image_url",
        "input_image",
        "audio_url",
        "video_url",
        "file_id",
        "file_ids",
        "file_url",
        "file_data",
        "prompt_embeds",
        "image_embeds",
        "audio_embeds",
        "previous_response_id",
        "conversation",
    }
)
"""Fields whose text is no content, but says where it is or encodes it."""
_MEDIA = _CONTENT_ELSEWHERE | {
    "image",
    "audio",
    "input_audio",
    "input_video",
    "file",
    "input_file",
    "image_file",
    "computer_screenshot",
    "item_reference",
}
"""Objects, by their field or their `type`, that are content but no text."""
_REFERENCES = ("url", "data", "id", "file_id", "file_data", "uuid")
_TOKENS = frozenset(["prompt", "input", "prompt_token_ids", "input_ids", "tokens", "token_ids"])
_DATA_URL = re.compile(r"\s*data:(?!text/)[\w.+-]+/[\w.+-]+[;,]", re.IGNORECASE)
_HEAD = 256
"""Of a long payload that is no text, this much is still read."""
_LONG_NUMBER = 10**6
"""Numbers below it are too short to identify anybody."""
_NODES_PER_CHECK = 512
_MAX_DEPTH = 10_000
"""Deeper than parsers of JSON go."""
_Values = Iterator[tuple[object, object]]

UNREADABLE = None


def strings(body: object, check: Callable[[], None]) -> Iterator[str | None]:
    """Yields each string, after its key where it has one, and `UNREADABLE` for the rest.

    Keys and long numbers count as strings. The depth of the body costs no stack; `check` is called
    every few hundred values. Raises ValueError for a body that no parser would have made so deep.
    """
    nodes = 0
    pending: list[_Values] = [iter([("", body)])]
    while pending:
        for key, value in pending[-1]:
            nodes += 1
            if nodes % _NODES_PER_CHECK == 0:
                check()
            if isinstance(value, str):
                if _DATA_URL.match(value, 0, _HEAD):
                    yield UNREADABLE
                    value = value[:_HEAD]
                elif value and key in _CONTENT_ELSEWHERE:
                    yield UNREADABLE
                yield f"{key}: {value}" if key else value
            elif isinstance(value, dict):
                if _is_media(key, value):
                    yield UNREADABLE
                if key:
                    yield str(key)
                _descend(pending, iter(value.items()))
                break
            elif isinstance(value, (list, tuple)):
                if key in _TOKENS and _holds_tokens(value):
                    yield UNREADABLE
                # The key stays with each element: a list of addresses is known for one.
                _descend(pending, zip(repeat(key), value))
                break
            elif isinstance(value, (int, float)) and abs(value) >= _LONG_NUMBER:
                yield f"{key}: {value}" if key else str(value)
            elif isinstance(key, str) and len(key) > 5:
                yield key
        else:
            pending.pop()


def _descend(pending: list[_Values], values: _Values) -> None:
    if len(pending) >= _MAX_DEPTH:
        raise ValueError("the body is nested too deep")
    pending.append(values)


def _is_media(key: object, value: dict[object, object]) -> bool:
    if key in _MEDIA:
        return any(isinstance(value.get(name), str) for name in _REFERENCES)
    part = value.get("type")
    return isinstance(part, str) and part in _MEDIA


def _holds_tokens(values: Iterable[object]) -> bool:
    first = next(iter(values), None)
    if isinstance(first, (list, tuple)):
        first = next(iter(first), None)
    return isinstance(first, int)
