"""The body of a request, within its limits."""

import asyncio
from collections.abc import Mapping

from orchestrator.gateway.asgi import WHOLE_BODY, AsgiScope, Receive
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.framing import declared_bytes

BODY_TIMEOUT_S = 30


async def read_body(
    headers: Mapping[bytes, bytes], scope: AsgiScope, receive: Receive, limit: int
) -> bytes:
    """The whole body. Raises ApiError 413 past the limit, 408 when it does not come, and 400 for a
    length that is none."""
    if declared_bytes(headers) > limit:
        raise _too_large(limit)
    whole_body = scope.get("extensions", {}).get(WHOLE_BODY)
    if whole_body is not None and (whole := whole_body()) is not None:
        if len(whole) > limit:
            raise _too_large(limit)
        return bytes(whole)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(408, "body_timeout", "The body did not arrive in time.") from None


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"The body may have {limit} bytes at most.")
