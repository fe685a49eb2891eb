"""Reading input files."""

import io
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.batch.lines import MAX_ERRORS, InputLine, read

CHAT = "/v1/chat/completions"


def line(custom_id: Any, **other: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}}
    return json.dumps(value | other).encode()


def codes(content: bytes, max_lines: int = 100) -> list[tuple[int | None, str]]:
    lines, problems = read(io.BytesIO(content), CHAT, max_lines, 1000)
    assert not (lines and problems)
    return [(p.line, p.code) for p in problems]


def test_a_line_is_found_again_by_its_offset_and_length() -> None:
    content = b"\n" + line("a") + b"\r\n  \n" + line("b", body={"model": "n"})
    lines, problems = read(io.BytesIO(content), CHAT, 10, 1000)
    assert not problems
    assert [(x.number, x.custom_id, x.model) for x in lines] == [(2, "a", "m"), (4, "b", "n")]
    assert [content[x.offset : x.offset + x.length] for x in lines] == [
        line("a"),
        line("b", body={"model": "n"}),
    ]


def test_every_problem_is_told_with_its_line_up_to_a_hundred() -> None:
    assert codes(line("a") + b"\n[]\n{\n" + line(3) + b"\n" + line("a")) == [
        (2, "invalid_json_line"),
        (3, "invalid_json_line"),
        (4, "invalid_custom_id"),
        (5, "duplicate_custom_id"),
    ]
    assert len(codes(b"x\n" * 5000)) == MAX_ERRORS


def test_a_line_that_is_too_long_is_not_held_and_the_next_is_read() -> None:
    long = line("a" * 5000)
    assert codes(long + b"\n" + line("b")) == [(1, "line_too_large")]
    assert codes(line("b") + b"\n" + long) == [(2, "line_too_large")]
    assert codes(b"\xff\xfe\n" + b"[" * 900) == [(1, "invalid_json_line"), (2, "invalid_json_line")]


def test_too_many_lines_are_too_many() -> None:
    content = b"\n".join(line(f"{n}") for n in range(4))
    assert codes(content, 4) == []
    assert codes(content, 3) == [(4, "too_many_lines")]


def test_a_stream_is_none_of_a_batch() -> None:
    assert codes(line("a", body={"model": "m", "stream": True})) == [(1, "unsupported_parameter")]
    assert codes(line("a", body={"model": "m", "stream": False})) == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_read_or_refused(parts: list[bytes]) -> None:
    content = b"\n".join(parts)
    lines, problems = read(io.BytesIO(content), CHAT, 10, 20)
    assert problems
    assert lines == []


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1), st.data())
def test_lines_are_the_files_own_whatever_lies_between_them(
    ids: list[str], data: st.DataObject
) -> None:
    blank = st.sampled_from([b"\n", b"\r\n", b"\n \n", b"\n\n"])
    content = b"".join(line(custom_id) + data.draw(blank) for custom_id in ids)
    lines: list[InputLine]
    lines, problems = read(io.BytesIO(content), CHAT, 1000, 1000)
    assert not problems
    assert [x.custom_id for x in lines] == ids
    for x in lines:
        assert json.loads(content[x.offset : x.offset + x.length])["custom_id"] == x.custom_id
