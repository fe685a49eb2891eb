"""Uploaded files: a multipart form, streamed to disk as it comes."""

import asyncio
import logging
from concurrent.futures import Executor
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from orchestrator.batch.files import Draft
from orchestrator.gateway.asgi import Receive
from orchestrator.gateway.errors import ApiError, ClientGone
from orchestrator.gateway.framing import declared_bytes

# It tells the log of the bytes that it does not like.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

WRITE_BYTES = 256 * 1024
IDLE_S = 30
"""From one part of the body to the next."""
MAX_FIELD_BYTES = 4096
MAX_PARTS = 16
FORM_BYTES = 64 * 1024
"""What a form may have besides the file's content."""


class Form:
    """What came: small fields as text, and one file, whose content went to the draft."""

    def __init__(self, draft: Draft, max_file_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.ended = False
        self._draft = draft
        self._max_file_bytes = max_file_bytes
        self._parts = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._field = ""
        self._text = bytearray()
        self._in_file = False

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _malformed(f"A form may have {MAX_PARTS} parts at most.")
        self._disposition = b""
        self._text.clear()
        self._in_file = False

    def on_header_begin(self) -> None:
        self._header.clear()
        self._value.clear()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = self._field == "file"
        if self._in_file:
            if self.filename is not None:
                raise _malformed("Give one file.")
            given = options.get(b"filename", b"").decode("utf-8", "replace")
            self.filename = "".join(c for c in given if c.isprintable())[:255] or "file"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            if self._draft.bytes + end - start > self._max_file_bytes:
                raise too_large(self._max_file_bytes)
            self._draft.write(memoryview(data)[start:end])
        elif len(self._text) + end - start > MAX_FIELD_BYTES:
            raise _malformed(f"A field may have {MAX_FIELD_BYTES} bytes at most.")
        else:
            self._text += data[start:end]

    def on_part_end(self) -> None:
        if not self._in_file:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def on_end(self) -> None:
        self.ended = True


async def read_form(
    headers: dict[bytes, bytes],
    receive: Receive,
    draft: Draft,
    max_file_bytes: int,
    total_s: float,
    disk: Executor,
) -> Form:
    """The whole form; what is written, is written in threads of `disk`. Raises ApiError 400, 408
    and 413, ClientGone and OSError."""
    kind, options = parse_options_header(headers.get(b"content-type", b""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(
            415, "unsupported_media_type", "Upload the file as multipart/form-data with a boundary."
        )
    most = max_file_bytes + FORM_BYTES
    if declared_bytes(headers) > most:
        raise too_large(max_file_bytes)
    form = Form(draft, max_file_bytes)
    callbacks: Any = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)
        async with asyncio.timeout(total_s):
            await _feed(parser, receive, most, disk)
    except FormParserError:
        raise _malformed("The body is no multipart form.") from None
    except TimeoutError:
        raise ApiError(408, "body_timeout", "The body did not arrive in time.") from None
    if not form.ended:
        raise _malformed("The form has no end.")
    return form


async def _feed(parser: MultipartParser, receive: Receive, most: int, disk: Executor) -> None:
    loop = asyncio.get_running_loop()
    size, held, more = 0, bytearray(), True
    while more:
        async with asyncio.timeout(IDLE_S):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise too_large(most - FORM_BYTES)
        held += part
        more = bool(message.get("more_body"))
        if len(held) >= WRITE_BYTES or not more:
            await loop.run_in_executor(disk, parser.write, bytes(held))
            held.clear()


def too_large(limit: int) -> ApiError:
    return ApiError(413, "file_too_large", f"A file may have {limit} bytes at most.", param="file")


def _malformed(message: str) -> ApiError:
    return ApiError(400, "invalid_form", message)
