"""What of a request an engine would fetch from elsewhere. Nobody's engine fetches what a client
names: it stands behind walls that the client does not, and what it fetched no policy has seen."""

from collections.abc import Iterator
from typing import Any

from orchestrator.gateway.errors import ApiError

_MEDIA = frozenset({"image_url", "audio_url", "video_url", "file_url"})
_SERVERS = frozenset({"server_url", "connector_id"})
"""Of tools that the engine itself would call."""
_TOOLS = frozenset({"tools", "mcp_servers"})
_DATA = frozenset(
    {
        "arguments",
        "chat_template_kwargs",
        "guided_json",
        "input_examples",
        "input_schema",
        "json_schema",
        "metadata",
        "parameters",
        "schema",
        "structured_outputs",
    }
)
"""Fields whose values are data and descriptions of data, with names of the client's choice. None
of them lies on the way to what an engine fetches."""


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
    left: list[tuple[str, Any, bool, bool]] = [("", content, False, False)]
    while left:
        name, value, is_place, in_tools = left.pop()
        if isinstance(value, str):
            if is_place:
                yield name, value
        elif isinstance(value, list):
            left.extend((name, one, is_place, in_tools) for one in value)
        elif isinstance(value, dict):
            is_source = is_place or value.get("type") == "url"
            # What a model called a tool with: never the body itself, whatever type it claims.
            calls = value.get("type") == "tool_use" and value is not content
            for key, inner in value.items():
                if key in _DATA or (calls and key == "input" and isinstance(inner, dict)):
                    continue
                names = key in _MEDIA or (key == "url" and is_source)
                called = in_tools and key in _SERVERS
                left.append((key, inner, names or called, in_tools or key in _TOOLS))
