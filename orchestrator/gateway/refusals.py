"""What a client is told when its request gets no answer, or no whole one."""

import re
from collections.abc import Iterable

import orjson

from orchestrator.gateway.errors import ApiError, unavailable
from orchestrator.policy.decide import Decision

OUT_OF_TIME = "out_of_time"
"""How a stream ends that had all the time that an answer may take. It says nothing of the endpoint:
the model may have had much to say, or the client read slowly."""


def denial(decision: Decision, tried: bool, retry_after_s: int) -> ApiError:
    """Why no endpoint was granted; `tried`: after others had failed this request."""
    if decision.denied == "model_not_found":
        return ApiError(
            404,
            "model_not_found",
            "This key has no model of that name; see /v1/models.",
            param="model",
        )
    if decision.denied == "residency":
        return ApiError(
            403,
            "residency",
            f"No zone that this workload may use can hold {decision.data_class.label} data.",
            "permission_error",
        )
    if decision.denied == "context_length":
        return ApiError(
            400,
            "context_length_exceeded",
            "More tokens are asked for than the model's context holds.",
            param="max_tokens",
        )
    if decision.denied == "saturated":
        return _overloaded(
            "saturated",
            "All replicas that could take this request were busy until its deadline.",
            retry_after_s,
        )
    if tried:
        return unavailable("upstream_failed", "No replica answered. Try again shortly.")
    return unavailable(
        "no_capacity", "No replica can take this request now. Try again shortly.", retry_after_s
    )


def deadline_unreachable(retry_after_s: int) -> ApiError:
    return _overloaded(
        "deadline_unreachable",
        "With what waits before it, this request would miss its deadline.",
        retry_after_s,
    )


def queue_full(retry_after_s: int) -> ApiError:
    return _overloaded(
        "queue_full", "The queue is full, and what waits in it goes first.", retry_after_s
    )


def _overloaded(code: str, message: str, retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        code,
        f"{message} Try again in {retry_after_s} s.",
        "rate_limit_error",
        headers={"retry-after": str(retry_after_s)},
    )


def too_late() -> ApiError:
    """Of a request that had all its time before its answer began."""
    return ApiError(
        504,
        "time_limit",
        "No answer came in the time that one may take. Ask for fewer tokens, or for a stream.",
        "server_error",
    )


def interruption(reason: str) -> ApiError:
    """The last event of a stream that had begun."""
    if reason == OUT_OF_TIME:
        return ApiError(
            504,
            "time_limit",
            "The answer took all the time that one may take. What was sent is valid; ask for fewer "
            "tokens.",
            "server_error",
        )
    return ApiError(
        502,
        "stream_interrupted",
        "The replica was lost in the middle of the answer. What was sent is valid; ask again for a "
        "whole answer.",
        "server_error",
    )


_NOT_FOR_CLIENTS = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+"  # addresses
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"
    r"|\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b"
    r"|(?<![\w.])/[\w.-]+/\S*"  # files
    r"|\b(?:bearer|basic)\s+\S+"  # credentials
    r"|\b(?=\w*[a-z-])(?=[\w-]*\d)[\w+/=-]{20,}",
    re.IGNORECASE,
)
_MESSAGE_CHARACTERS = 2000


def engine_message(body: bytes, withheld: Iterable[str] = ()) -> str:
    """The engine's sentence about the client's own request, without anything around it, and
    without what looks like an address, a file or a credential, `withheld` among them."""
    try:
        message = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = None
    if not isinstance(message, str) or "Traceback" in message:
        return "The engine refused the request as invalid."
    # A word that is cut may be one that nobody would know again.
    words = message[: 2 * _MESSAGE_CHARACTERS + 1].split()
    message = " ".join(words[:-1] if len(message) > 2 * _MESSAGE_CHARACTERS else words)
    for secret in withheld:
        message = message.replace(secret, "…")
    return _NOT_FOR_CLIENTS.sub("…", message)[:_MESSAGE_CHARACTERS]


def not_offered(status: int, body: bytes) -> ApiError | None:
    """For an engine that has no such endpoint for the model, which is no failure of the engine."""
    if status == 404:
        # vLLM says the same of a path that it does not have, in other words than of a model.
        try:
            answer = orjson.loads(body)
            missing = answer["error"]["message"] if "error" in answer else answer["detail"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        if missing != "Not Found":
            return None
    elif status not in (405, 501):
        return None
    return ApiError(
        404,
        "endpoint_not_offered",
        "This model does not offer this endpoint. Ask a model that does.",
        param="model",
    )
