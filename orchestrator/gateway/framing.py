"""Which heads of requests are taken: those that everybody on the way reads in one way.

The parser has refused by then what is no HTTP/1.1, among it both or several lengths, folded headers
and bare line feeds.
"""

import re
from collections.abc import Iterable, Mapping

from orchestrator.gateway.errors import ApiError

SINGLE = frozenset(
    {
        b"authorization",
        b"content-type",
        b"host",
        b"transfer-encoding",
        b"x-api-key",
        b"x-orchestrator-session",
        b"x-request-id",
    }
)
"""Headers of which two would leave open which one counts."""
MAX_LENGTH_DIGITS = 19
"""Of a body's length: as many as 64 bits need. Zeros may stand before it, and of thousands Python
makes no number."""
_HOST = re.compile(rb"[A-Za-z0-9._~%:\[\]-]*")
_TARGET = re.compile(rb"/[!-\"$-~]*")


def check(version: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """`headers`: names in lower case. Raises ApiError 400."""
    if version not in ("1.0", "1.1"):
        raise _refused("Speak HTTP/1.1.")
    if not _TARGET.fullmatch(target):
        raise _refused("The request's target is a path on this server.")
    seen: set[bytes] = set()
    for name, value in headers:
        if name == b"content-length" and len(value) > MAX_LENGTH_DIGITS:
            raise _refused(f"A body's length has {MAX_LENGTH_DIGITS} digits at most.")
        if name not in SINGLE:
            continue
        if name in seen:
            raise _refused(f"Send the header '{name.decode()}' once.")
        seen.add(name)
        if name == b"host" and not _HOST.fullmatch(value):
            raise _refused("The header 'host' names no host.")
        if name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
            raise _refused("A body's transfer encoding is 'chunked' or none, in HTTP/1.1.")
    if version == "1.1" and b"host" not in seen:
        raise _refused("Send the header 'host'.")


def declared_bytes(headers: Mapping[bytes, bytes]) -> int:
    """The length that a body is said to have, 0 where it is not said: also behind a server that
    passes on whatever comes. One with too many digits is longer than any limit. Raises ApiError
    400."""
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise _refused("The header 'content-length' is a number of bytes.")
    return int(declared) if len(declared) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS


def _refused(message: str) -> ApiError:
    return ApiError(400, "invalid_http", message)
