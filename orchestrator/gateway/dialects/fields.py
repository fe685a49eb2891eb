"""Fields of a request's body, checked."""

from typing import Any

from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.usage import LARGEST


def invalid(name: str, must: str) -> ApiError:
    return ApiError(400, "invalid_field", f"'{name}' {must}.", param=name)


def flag(body: dict[str, Any], name: str) -> bool:
    """Absent and null are false. Raises ApiError 400."""
    value = body.get(name) or False
    if not isinstance(value, bool):
        raise invalid(name, "is true or false")
    return value


def options(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Raises ApiError 400."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise invalid(name, "is an object")
    return value


def tokens(body: dict[str, Any], *names: str, least: int = 1) -> int:
    """The first of these fields that is there, 0 if none is. Raises ApiError 400."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            must = "is a whole number above 0" if least else "is a whole number, 0 or more"
            raise invalid(name, must)
        if value >= LARGEST:
            raise invalid(name, "is too large a number")
        return value
    return 0


def choices(body: dict[str, Any]) -> int:
    """How many answers are asked for: what is no number of them is the engine's to refuse."""
    value = body.get("n")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 1 else 1


def require(body: dict[str, Any], needs: tuple[tuple[str, ...], ...]) -> None:
    """Raises ApiError 400 unless the body has all fields of one combination."""
    if any(all(_given(body.get(name)) for name in needed) for needed in needs):
        return
    ways = " or ".join(" and ".join(f"'{name}'" for name in needed) for needed in needs)
    missing = next((name for name in needs[0] if not _given(body.get(name))), needs[0][0])
    raise ApiError(400, "missing_field", f"Give {ways}.", param=missing)


def _given(value: object) -> bool:
    return value not in (None, "", [], {})
