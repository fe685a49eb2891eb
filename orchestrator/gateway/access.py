"""Who is calling."""

from datetime import UTC, datetime

from orchestrator.config.keys import match
from orchestrator.config.spec import Key
from orchestrator.gateway.errors import ApiError


def authenticate(keys: dict[str, Key], authorization: bytes | None) -> Key:
    """The key behind an `Authorization: Bearer` header. Raises ApiError 401."""
    if authorization is None:
        raise ApiError(
            401,
            "missing_api_key",
            "Give an API key as 'Authorization: Bearer KEY'.",
            "authentication_error",
        )
    scheme, _, presented = authorization.decode("latin-1").partition(" ")
    key = match(keys, presented.strip(), datetime.now(UTC)) if scheme.lower() == "bearer" else None
    if key is None:
        raise ApiError(
            401, "invalid_api_key", "The API key is wrong or expired.", "authentication_error"
        )
    return key
