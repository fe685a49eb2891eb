"""What of a request an engine would fetch from elsewhere. Nobody's engine fetches what a client
names: it stands behind walls that the client does not, and what it fetched no policy has seen."""

from collections.abc import Iterator
from typing import Any

from orchestrator.gateway.errors import ApiError

_MEDIA = frozenset({"image_url", "audio_url", "video_url", "file_url"})
_SERVERS = frozenset({"server_url", "connector_id"})
"""Of tools that the engine itself would call."""


def refuse_remote(content: dict[str, Any], body: bytes) -> None:
    """`body` is the same as JSON, to be looked at first. Raises ApiError 400."""
    if b'url"' not in body and b'connector_id"' not in body:
        return
    for key, value in _places(content):
        if key in _SERVERS:
            raise ApiError(
                400,
                "remote_tool",
                "Engines call no servers here. Call the tool yourself, as a function.",
                param="tools",
            )
        if not value.lstrip()[:5].lower() == "data:":
            raise ApiError(
                400,
                "remote_content",
                "Nothing is fetched from elsewhere here. Send the content itself, as a data: URL.",
                param=key,
            )


def _places(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each string that says where something is, with its field."""
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        name, value = left.pop()
        if isinstance(value, list):
            left.extend((name, one) for one in value)
        elif isinstance(value, dict):
            is_source = name in _MEDIA or value.get("type") == "url"
            for key, inner in value.items():
                if not isinstance(inner, str):
                    left.append((key, inner))
                elif key in _MEDIA or key in _SERVERS or (key == "url" and is_source):
                    yield key, inner
