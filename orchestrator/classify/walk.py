"""Every string of a request's body, wherever it stands, and what cannot be read as text."""

import re
from collections.abc import Callable, Iterator
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
        "encrypted_content",
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
    "image_generation_call",
    "item_reference",
    "redacted_thinking",
}
"""Objects, by their field or their `type`, that are content but no text."""
_SOURCES = frozenset({"base64", "url", "file"})
"""Types of an object in a field `source` that hold no text either."""
_STATE = frozenset({"kv_transfer_params", "ec_transfer_params"})
"""Objects that say where an engine has read content already."""
_REFERENCES = frozenset({"url", "data", "id", "file_id", "file_data", "uuid"})
_TOKEN_IDS = frozenset({"prompt_token_ids", "input_ids", "tokens", "token_ids"})
_MAYBE_TOKEN_IDS = _TOKEN_IDS | {"prompt", "input"}
_DATA_URL = re.compile(r"\s*data:(?!text/)[\w.+-]+/[\w.+-]+[;,]", re.IGNORECASE)
_HEAD = 256
"""Of a long payload that is no text, this much is still read."""
_LONG_NUMBER = 10**6
"""Numbers below it are too short to identify anybody."""
_NUMBERS = frozenset({int, float, bool})
_NODES_PER_CHECK = 512
_DEPTH_OF_FIELDS = 2
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
                if key:
                    yield str(key)
                if _is_media(key, value):
                    yield UNREADABLE
                    _descend(pending, _without_payload(value))
                else:
                    _descend(pending, iter(value.items()))
                break
            elif isinstance(value, (list, tuple)):
                # In a body's own field an engine takes digits for token ids, too.
                is_field = len(pending) == _DEPTH_OF_FIELDS and value
                if (key in _TOKEN_IDS and is_field) or (
                    key in _MAYBE_TOKEN_IDS and not _NUMBERS.isdisjoint(map(type, value))
                ):
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
    if key in _STATE:
        return bool(value)
    part = value.get("type")
    if isinstance(part, str) and (part in _MEDIA or (key == "source" and part in _SOURCES)):
        return True
    return key in _MEDIA and any(isinstance(value.get(name), str) for name in _REFERENCES)


def _without_payload(value: dict[object, object]) -> _Values:
    for key, inner in value.items():
        yield key, inner[:_HEAD] if key in _REFERENCES and isinstance(inner, str) else inner
