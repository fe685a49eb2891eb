"""The lines of a batch: reading its input file, and writing what became of each."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import orjson

MAX_ERRORS = 100
"""Of a broken file nobody reads more."""
MAX_CUSTOM_ID = 512
MAX_MODEL = 256
BREATH_S = 0.001
"""The reader works for so long and pauses for so long: the interpreter is shared with requests that
cannot wait."""


@dataclass(frozen=True, slots=True)
class InputLine:
    number: int
    """From 1, as editors count."""
    offset: int
    length: int
    custom_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an input file, as a batch's `errors` list it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param


def read(
    file: BinaryIO, endpoint: str, max_lines: int, max_line_bytes: int
) -> tuple[list[InputLine], list[Problem]]:
    """Every line of an input file, or what is wrong with it. Requests themselves are not looked
    at: what is wrong with one is told in its own answer."""
    lines: list[InputLine] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, offset, raw in _with_breath(_raw_lines(file, max_line_bytes)):
        if len(lines) == max_lines:
            most = f"A batch may have {max_lines} lines at most; divide the file."
            return [], [Problem("too_many_lines", most, number)]
        try:
            line = _line(number, offset, raw, endpoint, max_line_bytes)
            if line.custom_id in seen:
                raise _Wrong("duplicate_custom_id", "Another line has this custom_id.", "custom_id")
            seen.add(line.custom_id)
            lines.append(line)
        except _Wrong as wrong:
            problems.append(Problem(wrong.code, wrong.message, number, wrong.param))
            if len(problems) == MAX_ERRORS:
                break
    if not lines and not problems:
        problems.append(Problem("empty_file", "The input file has no lines."))
    return ([], problems) if problems else (lines, [])


def _raw_lines(file: BinaryIO, max_line_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank. Of one that is too long comes more
    than a line may have, and not the rest."""
    number, offset = 0, file.tell()
    while raw := file.readline(max_line_bytes + 2):
        number += 1
        length = len(raw)
        while not raw.endswith(b"\n"):
            rest = file.readline(max_line_bytes)
            length += len(rest)
            if not rest or rest.endswith(b"\n"):
                break
        if raw.strip():
            yield number, offset, raw
        offset += length


def _with_breath(lines: Iterable[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    until_s = time.monotonic() + BREATH_S
    for line in lines:
        yield line
        if time.monotonic() > until_s:
            time.sleep(BREATH_S)
            until_s = time.monotonic() + BREATH_S


def _line(number: int, offset: int, raw: bytes, endpoint: str, max_line_bytes: int) -> InputLine:
    length = len(raw.rstrip(b"\r\n"))
    if length > max_line_bytes:
        most = f"A line may have {max_line_bytes} bytes at most."
        raise _Wrong("line_too_large", most)
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _Wrong("invalid_json_line", "This line is not JSON.") from None
    if not isinstance(line, dict):
        raise _Wrong("invalid_json_line", "This line is not a JSON object.")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        says = f"Give 'custom_id' as a string of {MAX_CUSTOM_ID} characters at most."
        raise _Wrong("invalid_custom_id", says, "custom_id")
    if line.get("method") != "POST":
        raise _Wrong("invalid_method", "'method' is POST.", "method")
    if line.get("url") != endpoint:
        raise _Wrong("invalid_url", f"'url' is the batch's endpoint, {endpoint}.", "url")
    body = line.get("body")
    if not isinstance(body, dict):
        raise _Wrong("missing_required_parameter", "Give 'body' as an object.", "body")
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL:
        says = "Give the model's name as a string."
        raise _Wrong("missing_required_parameter", says, "body.model")
    if body.get("stream") not in (None, False):
        says = "A line's answer is not streamed; leave 'stream' out."
        raise _Wrong("unsupported_parameter", says, "body.stream")
    return InputLine(number, offset, length, custom_id, model)


def answered(request_id: str, custom_id: str, status: int, body: Any) -> bytes:
    """The line of the output or error file for a request that got an answer."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _result(request_id, custom_id, response, None)


def unanswered(request_id: str, custom_id: str, code: str, message: str) -> bytes:
    """The line of the error file for a request that got none."""
    return _result(request_id, custom_id, None, {"code": code, "message": message})


def _result(
    request_id: str, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> bytes:
    line = {
        "id": request_id.replace("batch_", "batch_req_", 1),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
