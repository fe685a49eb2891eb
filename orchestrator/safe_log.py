"""What a log may say of an exception: its text may hold anything that a client or an endpoint sent,
an address, a credential."""

import asyncio
import logging
import os
import sqlite3
import traceback
from pathlib import Path
from typing import Any

MAX_CAUSES = 5

log = logging.getLogger("orchestrator.gateway")


def without_text(error: BaseException) -> str:
    """Kinds and places of an exception and of its causes; the system's own words for its code."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MAX_CAUSES:
        places = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(cause.__traceback__)
        ]
        parts.append(f"{_kind(cause)} in {' > '.join(places) or '?'}")
        cause = cause.__cause__ or cause.__context__
    return "; after ".join(parts)


def _kind(error: BaseException) -> str:
    kind = type(error).__name__
    code = ""
    # TLS and name look-ups have codes of their own in the place of the system's.
    if isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno):
        code = error.strerror
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorname", "")
    return f"{kind} ({code})" if code else kind


def loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In the place of the event loop's own handler, which writes down all that it is given."""
    error = context.get("exception")
    log.error("the event loop: %s", without_text(error) if error else "something without exception")
