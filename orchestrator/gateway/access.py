"""Who is calling."""

from collections.abc import Container, Mapping
from datetime import UTC, datetime

from orchestrator.config.keys import match
from orchestrator.config.spec import Key
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.errors import ApiError


def authenticate(
    keys: Mapping[str, Key], workloads: Container[str], authorization: bytes | None
) -> Caller:
    """Whose key is behind an `Authorization: Bearer` header. Raises ApiError 401.

    A key of a workload that is not known, or not any more, opens nothing.
    """
    if authorization is None:
        raise ApiError(
            401,
            "missing_api_key",
            "Give an API key as 'Authorization: Bearer KEY'.",
            "authentication_error",
        )
    scheme, _, presented = authorization.decode("latin-1").partition(" ")
    key = match(keys, presented.strip(), datetime.now(UTC)) if scheme.lower() == "bearer" else None
    if key is None or key.workload not in workloads:
        raise ApiError(
            401, "invalid_api_key", "The API key is wrong or expired.", "authentication_error"
        )
    return Caller(key.id, key.workload)
