"""The fields of a request that routing needs; the rest passes through as it came."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.errors import ApiError

ENDPOINTS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
"""Paths that are relayed, and the field that each of them must have."""

MAX_SESSION_ID = 256


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    path: str
    model: str
    stream: bool
    wants_usage: bool
    """Whether the client asked for the usage chunk of a stream."""
    max_tokens: int
    """The most that may be generated, 0 when the client leaves it to the engine."""
    content: dict[str, Any]
    """The whole body. Streams always ask for usage."""
    body: bytes
    """The same again: what goes upstream is what was read here, whatever else the client's bytes
    could be read as."""

    def named(self, model: str) -> bytes:
        """The body for an endpoint that calls the model by another name."""
        return orjson.dumps(self.content | {"model": model})


def parse(path: str, raw: bytes) -> InferenceRequest:
    """Raises ApiError 400 for a body that no engine could serve."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "invalid_json", f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "missing_field", "Give the model's name as a string.", param="model")
    required = ENDPOINTS[path]
    if not body.get(required):
        raise ApiError(400, "missing_field", f"Give '{required}'.", param=required)
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise ApiError(400, "invalid_field", "'stream' is true or false.", param="stream")
    wants_usage = False
    if stream:
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            raise ApiError(
                400, "invalid_field", "'stream_options' is an object.", param="stream_options"
            )
        wants_usage = options.get("include_usage") is True
        if not wants_usage:
            body["stream_options"] = {**options, "include_usage": True}
    max_tokens = _max_tokens(body)
    try:
        # Less deep than what can be read.
        rebuilt = orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise ApiError(400, "invalid_json", "The body is nested too deeply.") from None
    return InferenceRequest(path, model, stream, wants_usage, max_tokens, body, rebuilt)


def _max_tokens(body: dict[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ApiError(400, "invalid_field", f"'{name}' is a whole number above 0.", param=name)
        return value
    return 0


def claimed_data_class(headers: Iterable[tuple[bytes, bytes]]) -> DataClass:
    """The highest class that a client, or a proxy on the way, put on the request.

    Headers may come several times and as lists. Raises ApiError 400 for an unknown label.
    """
    labels = [
        label
        for name, value in headers
        if name == b"x-orchestrator-data-class"
        for label in value.decode("latin-1").split(",")
    ]
    try:
        return max((DataClass.parse(label) for label in labels), default=DataClass.PUBLIC)
    except ValueError:
        known = ", ".join(c.label for c in DataClass)
        raise ApiError(
            400, "invalid_data_class", f"'x-orchestrator-data-class' is one of {known}."
        ) from None


def session_id_of(headers: dict[bytes, bytes]) -> str:
    """The client's name for its conversation, empty when it gives none. Raises ApiError 400."""
    given = headers.get(b"x-orchestrator-session", b"").decode("latin-1")
    if len(given) > MAX_SESSION_ID:
        raise ApiError(
            400,
            "invalid_session",
            f"'x-orchestrator-session' has {MAX_SESSION_ID} characters at most.",
        )
    return given
