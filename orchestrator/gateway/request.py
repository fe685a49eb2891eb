"""The fields of a request that routing needs; the rest passes through as it came."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.dialects import ENDPOINTS, Asked, Dialect
from orchestrator.gateway.dialects.fields import require
from orchestrator.gateway.errors import ApiError

MAX_SESSION_ID = 256
BYTES_PER_TOKEN = 4
"""Of a prompt, before an engine has counted it."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    dialect: Dialect
    asked: Asked
    model: str
    content: dict[str, Any]
    """The whole body."""
    body: bytes
    """The same again, but for what is set for each engine: what goes upstream is what was read
    here, whatever else the client's bytes could be read as."""

    @property
    def path(self) -> str:
        """Of the engine."""
        return self.dialect.upstream_path

    @property
    def estimated_prompt_tokens(self) -> int:
        """By the length of the body, where no engine has counted them."""
        return len(self.body) // BYTES_PER_TOKEN

    @property
    def stream(self) -> bool:
        return self.asked.stream

    @property
    def max_tokens(self) -> int:
        """The most that may be generated for a choice, 0 when the client leaves it to the
        engine."""
        return self.asked.max_tokens

    def sent_to(self, served_name: str | None, vllm: bool) -> bytes:
        """The body for an engine, which may call the model by another name. `vllm`: whether it is
        one for certain, and takes the options that only vLLM knows."""
        options = self.dialect.engine_options(self.asked, self.content, vllm)
        extra = orjson.dumps({"model": served_name or self.model, **options})
        return self.body[:-1] + b"," + extra[1:]

    def changed(self, asked: Asked, content: dict[str, Any]) -> "InferenceRequest":
        """The same request with another body. Raises ApiError 400 for one that is nested too
        deep."""
        return _made(self.dialect, asked, self.model, content)


def parse(path: str, raw: bytes) -> InferenceRequest:
    """Of one of `ENDPOINTS`. Raises ApiError 400 for a body that no engine could serve."""
    dialect = ENDPOINTS[path]
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, "invalid_json", f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "missing_field", "Give the model's name as a string.", param="model")
    require(body, dialect.needs)
    return _made(dialect, dialect.asked(body), model, body)


def _made(dialect: Dialect, asked: Asked, model: str, content: dict[str, Any]) -> InferenceRequest:
    options = dialect.engine_options(asked, content, vllm=False)
    kept = {n: value for n, value in content.items() if n != "model" and n not in options}
    try:
        return InferenceRequest(dialect, asked, model, content, orjson.dumps(kept))
    except orjson.JSONEncodeError:
        raise ApiError(400, "invalid_json", "The body is nested too deep.") from None


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
    if not labels:
        return DataClass.PUBLIC
    try:
        return max(map(DataClass.parse, labels))
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
