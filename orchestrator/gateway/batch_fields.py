"""The fields of requests for files and batches."""

import re
import time
from typing import Any

import orjson

from orchestrator.batch.files import Draft, File, new_id
from orchestrator.config.spec import Batches as BatchSpec
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.uploads import Form

WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_WINDOW_S = 14 * 86_400
SHORTEST_LIFE_S, LONGEST_LIFE_S = 3600, 30 * 86_400
"""What `expires_after` may say, as OpenAI has it."""
MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512


def file_of(form: Form, draft: Draft, workload: str, claimed: int, limits: BatchSpec) -> File:
    """The uploaded file. Raises ApiError 400."""
    if form.filename is None:
        raise invalid("file", "Give the file.")
    if form.fields.get("purpose") != "batch":
        raise invalid("purpose", "'purpose' is batch.")
    if not draft.bytes:
        raise invalid("file", "The file is empty.")
    body: dict[str, Any] = {}
    given = {name for name in form.fields if name.startswith("expires_after")}
    if given:
        seconds = form.fields.get("expires_after[seconds]", "")
        body["expires_after"] = {
            "anchor": form.fields.get("expires_after[anchor]"),
            "seconds": int(seconds) if re.fullmatch(r"[0-9]{1,9}", seconds) else None,
        }
    now_s = time.time()
    kept_s = life_s(body, "expires_after") or limits.retention_s
    return File(
        id=new_id(),
        workload=workload,
        purpose="batch",
        filename=form.filename,
        bytes=draft.bytes,
        created_at_s=now_s,
        expires_at_s=now_s + kept_s,
        claimed=claimed,
    )


def life_s(body: dict[str, Any], param: str) -> float | None:
    """Of what is kept, where the body says it. Raises ApiError 400."""
    given = body.get(param)
    if given is None:
        return None
    seconds = given.get("seconds") if isinstance(given, dict) else None
    if (
        not isinstance(seconds, int)
        or isinstance(seconds, bool)
        or given.get("anchor") != "created_at"
        or not SHORTEST_LIFE_S <= seconds <= LONGEST_LIFE_S
    ):
        raise invalid(
            param,
            f"'{param}' has the anchor created_at, and {SHORTEST_LIFE_S} to {LONGEST_LIFE_S} "
            "seconds.",
        )
    return float(seconds)


def window_s(given: Any) -> int:
    """Raises ApiError 400."""
    found = WINDOW.fullmatch(given) if isinstance(given, str) else None
    seconds = int(found[1]) * UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_WINDOW_S:
        raise invalid(
            "completion_window",
            "'completion_window' is a time such as 24h or 90m, of 14d at most.",
        )
    return seconds


def metadata(given: Any) -> str | None:
    """Raises ApiError 400."""
    if given is None:
        return None
    if (
        not isinstance(given, dict)
        or len(given) > MAX_METADATA
        or not all(
            isinstance(value, str)
            and len(key) <= MAX_METADATA_KEY
            and len(value) <= MAX_METADATA_VALUE
            for key, value in given.items()
        )
    ):
        raise invalid(
            "metadata",
            f"'metadata' has {MAX_METADATA} pairs at most, of keys of {MAX_METADATA_KEY} and "
            f"strings of {MAX_METADATA_VALUE} characters.",
        )
    return orjson.dumps(given).decode()


def json_object(raw: bytes) -> dict[str, Any]:
    """Raises ApiError 400."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ApiError(400, "invalid_json", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_json", "The body must be a JSON object.")
    return body


def page_limit(options: dict[str, str], default: int, most: int) -> int:
    """Raises ApiError 400."""
    given = options.get("limit", str(default))
    if not re.fullmatch(r"[0-9]{1,6}", given) or not 1 <= int(given) <= most:
        raise invalid("limit", f"'limit' is a number from 1 to {most}.")
    return int(given)


def page(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """`found` may have one more than the limit."""
    data = found[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }


def invalid(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_field", message, param=param)
