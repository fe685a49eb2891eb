"""Clients whose requests are well framed, and whose keys, paths and bodies are not: each is refused
in the shape of every error, and none meets a failure of ours."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.hostile import (
    HEAD,
    attacked,
    authorized,
    refusal,
    sent,
)
from tests.integration.running import Running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with attacked(tmp_path_factory.mktemp("hostile")) as made:
        yield made


BODIES = {
    "a null": b'{"model": "m", "messages": [1]}\0',
    "broken UTF-8": b'{"model": "m", "messages": ["\xff\xfe"]}',
    "an overlong character": b'{"model": "m", "messages": ["\xc0\xaf"]}',
    "a surrogate's bytes": b'{"model": "m", "messages": ["\xed\xa0\x80"]}',
    "half a surrogate": b'{"model": "m", "messages": ["\\ud800"]}',
    "surrogates the wrong way round": b'{"model": "m", "messages": ["\\udc00\\ud800"]}',
    "half a surrogate for a model": b'{"model": "\\ud800", "messages": [1]}',
    "UTF-16": '{"model": "m", "messages": [1]}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "no number": b'{"model": "m", "messages": [NaN]}',
    "a number past all bounds": b'{"model": "m", "messages": [1e999999]}',
    "a number of many digits": b'{"model": "m", "messages": [1], "max_tokens": %b}'
    % (b"9" * 100_000),
    "a model of another type": b'{"model": {"m": []}, "messages": [1]}',
    "nothing": b"",
    "many unfinished": b"[" * 300_000,
} | {
    f"{depth} deep in {opening!r}": b'{"model": "m", "messages": '
    + opening * depth
    + b"1"
    + (b"]" if opening == b"[" else b"}") * depth
    + b"}"
    for opening in (b"[", b'{"a":')
    for depth in (260, 1000, 50_000)
}


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/completions"])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_no_engine_could_read_is_refused(
    stack: Running, body: str, path: bytes
) -> None:
    data = BODIES[body].replace(
        b"messages", b"prompt" if path == b"/v1/completions" else b"messages"
    )
    head = authorized(stack.w, path) + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(
        data
    )
    status, code = refusal(stack.run(sent(stack.w, head + data)))
    assert (status, code) in {
        (400, "invalid_json"),
        (400, "missing_field"),
        (400, "invalid_field"),
        (400, "context_length_exceeded"),
    }


@pytest.mark.parametrize(
    "head",
    [
        b"authorization: Bearer \xff\xfe",
        b"authorization: \xed\xa0\x80",
        b"authorization: Bearer",
        b"authorization: Bearer " + b"a" * 30_000,
        b"authorization: Basic " + b"a" * 100,
    ],
)
def test_a_key_of_any_bytes_is_a_wrong_key(stack: Running, head: bytes) -> None:
    data = HEAD + head + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    assert refusal(stack.run(sent(stack.w, data)))[0] == 401


@pytest.mark.parametrize(
    "head", [b"x-orchestrator-data-class: \xff", b"x-orchestrator-session: " + b"\xff" * 300]
)
def test_headers_of_ours_take_no_other_bytes(stack: Running, head: bytes) -> None:
    body = b'{"model": "m", "messages": [1]}'
    framing = b"\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert refusal(stack.run(sent(stack.w, authorized(stack.w) + head + framing + body)))[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        b"/%ff%fe",
        b"/%ed%a0%80",
        b"/%00",
        b"/%0d%0ax-injected:%20a",
        b"/v1/models/%ff",
        b"/v1/models/%ed%a0%80",
        b"/../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"//elsewhere/healthz",
        b"/v1/chat/completions/",
        b"/v1//chat/completions",
        b"/V1/CHAT/COMPLETIONS",
        b"/%",
        b"/%zz",
        b"/?" + b"a" * 30_000,
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"TRACE", b"PROPFIND", b"M-SEARCH"])
def test_there_is_nothing_at_an_odd_path(stack: Running, path: bytes, method: bytes) -> None:
    data = b"%b %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer %b\r\n\r\n" % (
        method,
        path,
        stack.w.keys["open"].encode(),
    )
    got = stack.run(sent(stack.w, data))
    assert refusal(got)[0] in (404, 405)
    assert b"x-injected" not in got


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_request_is_answered_by_a_failure_of_ours(stack: Running, value: object) -> None:
    async def test() -> None:
        headers = {"authorization": f"Bearer {stack.w.keys['open']}"}
        for body in (
            value,
            {"model": "m", "messages": value},
            {"model": "m", "messages": [value]},
            {"model": "m", "messages": [{"role": "user", "content": value}], "max_tokens": 1},
            {"model": value, "messages": [1]},
            {"model": "m", "messages": [1], "max_tokens": value},
            {"model": "m", "messages": [1], "max_tokens": 1, "stream_options": value},
        ):
            async with stack.w.session.post(
                f"{stack.w.url}/v1/chat/completions", data=json.dumps(body), headers=headers
            ) as answer:
                assert answer.status < 500

    stack.run(test())
