"""Errors in OpenAI's shape."""

import traceback
from dataclasses import dataclass, field
from pathlib import Path

import orjson

MAX_CAUSES = 5


class ClientGone(Exception):
    """The client closed the connection before it had its answer, or does not read it in time."""


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error. `message` never carries content, secrets or upstream text."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return orjson.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def event(self) -> bytes:
        """As the last event of a stream whose status is already sent."""
        return b"data: " + self.body() + b"\n\n"


def unavailable(code: str, message: str, retry_after_s: int = 5) -> ApiError:
    return ApiError(
        503, code, message, "service_unavailable", headers={"retry-after": str(retry_after_s)}
    )


def without_text(error: BaseException) -> str:
    """What a log may say of an exception: kinds and places of it and of its causes. Its text may
    hold anything: what a client sent, an address, a credential."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MAX_CAUSES:
        places = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(cause.__traceback__)
        ]
        parts.append(f"{type(cause).__name__} in {' > '.join(places) or '?'}")
        cause = cause.__cause__ or cause.__context__
    return "; after ".join(parts)
