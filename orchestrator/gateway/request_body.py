"""The body of a request, within its limits."""

import asyncio
from collections.abc import Mapping

from orchestrator.gateway.asgi import Receive
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.framing import declared_bytes

BODY_TIMEOUT_S = 30


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body. Raises ApiError 413 past the limit, 408 when it does not come, and 400 for a
    length that is none."""
    too_large = ApiError(413, "body_too_large", f"The body may have {limit} bytes at most.")
    if declared_bytes(headers) > limit:
        raise too_large
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
                    raise too_large
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(408, "body_timeout", "The body did not arrive in time.") from None
