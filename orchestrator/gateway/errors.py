"""Errors in OpenAI's shape."""

from dataclasses import dataclass, field

import orjson


class ClientGone(Exception):
    """The client closed the connection before it had its answer, or does not read it in time."""


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error. `message` never carries content or secrets; of an engine's text
    only what `refusals.engine_message` lets through of its word on a request that it refused."""

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


def workload_is_no_more() -> ApiError:
    return ApiError(
        401, "invalid_api_key", "The API key's workload is no more.", "authentication_error"
    )


def unavailable(code: str, message: str, retry_after_s: int = 5) -> ApiError:
    return ApiError(
        503, code, message, "service_unavailable", headers={"retry-after": str(retry_after_s)}
    )
