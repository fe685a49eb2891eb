"""Clients whose bytes may be read in more than one way, or in none: each is refused in the shape of
every error, and nothing after it is read."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.integration.hostile import (
    AFTER,
    CHAT,
    HEAD,
    STATUS,
    WHOLE,
    attacked,
    authorized,
    connect,
    read_to_end,
    refusal,
    sent,
)
from tests.integration.running import Running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with attacked(tmp_path_factory.mktemp("hostile")) as made:
        yield made


AMBIGUOUS = {
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
    "the same length twice": HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\nabcde",
    "a list of lengths": HEAD + b"content-length: 5, 5\r\n\r\nabcde",
    "a length with a plus": HEAD + b"content-length: +5\r\n\r\nabcde",
    "a negative length": HEAD + b"content-length: -5\r\n\r\nabcde",
    "a length with a space": HEAD + b"content-length: 5 5\r\n\r\nabcde",
    "an empty length": HEAD + b"content-length: \r\n\r\nabcde",
    "a hexadecimal length": HEAD + b"content-length: 0x5\r\n\r\nabcde",
    "a length with an underscore": HEAD + b"content-length: 1_0\r\n\r\nabcdeabcde",
    "a length of thousands of digits": HEAD + b"content-length: " + b"0" * 5000 + b"5\r\n\r\nabcde",
    "a length past 64 bits": HEAD + b"content-length: 99999999999999999999\r\n\r\nabcde",
    "no such encoding": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked, identity": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity, chunked": HEAD + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD
    + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked after a tabulator": HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": HEAD + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked folded": HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "space in a name": HEAD + b"transfer encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "no colon": HEAD + b"transfer-encoding\r\n\r\n",
    "no name": HEAD + b": chunked\r\n\r\n",
    "a folded header": HEAD + b"x: a\r\n b\r\n\r\n",
    "a folded first header": CHAT + b" host: a\r\n\r\n",
    "bare line feeds": b"POST /x HTTP/1.1\nhost: a\n\n",
    "one bare line feed": CHAT + b"host: a\ncontent-length: 1\r\n\r\nx",
    "a bare carriage return": CHAT + b"host: a\rcontent-length: 1\r\n\r\nx",
    "a null in a value": HEAD + b"x: a\0b\r\n\r\n",
    "a null in a name": HEAD + b"x\0: ab\r\n\r\n",
    "a null in the target": b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a control character": HEAD + b"x: a\x01b\r\n\r\n",
    "no host": CHAT + b"content-length: 0\r\n\r\n",
    "two hosts": HEAD + b"host: b\r\n\r\n",
    "a host with a path": CHAT + b"host: a/b\r\n\r\n",
    "a host with a user": CHAT + b"host: b@a\r\n\r\n",
    "two authorizations": HEAD + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
    "an absolute target": b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target without a slash": b"GET healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target with a fragment": b"GET /healthz#a HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target beyond ASCII": b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    "the server's options": b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nhost: a\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nhost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/01.1": b"GET /healthz HTTP/01.1\r\nhost: a\r\n\r\n",
    "no such method": b"STEAL /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    "tabulators": b"GET\t/healthz\tHTTP/1.1\r\nhost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
}


@pytest.mark.parametrize("shape", AMBIGUOUS)
@pytest.mark.parametrize("piecewise", [False, True])
def test_what_may_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    stack: Running, shape: str, piecewise: bool
) -> None:
    async def bytewise(data: bytes) -> bytes:
        reader, writer = await connect(stack.w)
        with suppress(ConnectionError):
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
        got = await read_to_end(reader)
        writer.close()
        return got

    data = AMBIGUOUS[shape] + AFTER
    got = stack.run(bytewise(data) if piecewise else sent(stack.w, data))
    assert refusal(got) == (400, "invalid_http")


@pytest.mark.parametrize(
    "body",
    [
        b"fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"5 \r\nabcde\r\n0\r\n\r\n",
        b"5\nabcde\r\n0\r\n\r\n",
        b"5\r\nabcdef\r\n0\r\n\r\n",
        b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
        b"5\r\nabcde\r\n0\r\ncontent-length: 4\r\n\r\n",
        b"5\r\nabcde\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_chunks_that_may_be_read_in_two_ways_are_refused(stack: Running, body: bytes) -> None:
    head = authorized(stack.w) + b"transfer-encoding: chunked\r\n\r\n"
    got = stack.run(sent(stack.w, head + body + AFTER))
    assert refusal(got) == (400, "invalid_http")


@pytest.mark.parametrize(
    "framed",
    [
        b"content-length: %d\r\n\r\n%b",
        b"content-length: 000%d\r\n\r\n%b",
        b"transfer-encoding: CHUNKED\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
        b"transfer-encoding:\tchunked\r\n\r\n%x;name=value\r\n%b\r\n0\r\nx-trailer: a\r\n\r\n",
        b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n%b",
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: a\r\n"
        b"content-length: %d\r\n\r\n%b",
        b"connection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
def test_what_is_unusual_but_clear_is_served(
    stack: Running, framed: bytes, piecewise: bool
) -> None:
    body = b'{"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}'
    data = authorized(stack.w) + framed % (len(body), body)

    async def test() -> None:
        reader, writer = await connect(stack.w)
        for _ in range(2):
            pieces = [data[i : i + 1] for i in range(len(data))] if piecewise else [data]
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                if b"100 Continue" in head:
                    head = await reader.readuntil(b"\r\n\r\n")
                assert b"200 OK" in head
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                answer = orjson.loads(await reader.readexactly(length))
            assert answer["choices"][0]["message"]["content"] == " t0 t1 t2"
        writer.close()

    stack.run(test())


def test_a_request_sent_before_the_answer_to_the_last_is_dropped_with_its_connection(
    stack: Running,
) -> None:
    """Its client may send it again: by the close it knows that nobody took it."""
    body = b'{"model": "m", "max_tokens": 3, "messages": [{"content": "hi"}], "stream": true}'
    first = authorized(stack.w) + b"content-length: %d\r\n\r\n" % len(body) + body
    for second in (AFTER, first, b"garbage \0\r\n", b"a" * 10_000_000):
        got = stack.run(sent(stack.w, first + second))
        assert STATUS.findall(got) == [b"200"]
        assert b"\r\nconnection: close\r\n" in got
        assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


FRAGMENTS = st.sampled_from(
    [
        *(b"GET", b"POST", b"PUT", b"CONNECT", b"PRI", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\0"),
        *(b"/healthz", b"/v1/chat/completions", b"*", b"http://a/", b"HTTP/1.1", b"HTTP/1.0"),
        *(b"host: a\r\n", b"host: b\r\n", b"content-length: 3\r\n", b"content-length: -1\r\n"),
        *(b"transfer-encoding: chunked\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n"),
        *(b"connection: close\r\n", b"expect: 100-continue\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"\xff"),
    ]
)


@st.composite
def malformed(draw: st.DrawFn) -> bytes:
    """A good request that something has happened to, or fragments of several."""
    if draw(st.booleans()):
        return b"".join(draw(st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12)))
    data = bytearray(draw(st.sampled_from([WHOLE, HEAD + b"content-length: 3\r\n\r\nabc"])))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 2))] = draw(FRAGMENTS | st.binary(max_size=3))
        data = data or bytearray(b" ")
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(malformed())
@example(WHOLE + WHOLE)
def test_no_bytes_are_answered_by_anything_but_a_refusal_or_an_answer(
    stack: Running, data: bytes
) -> None:
    got = stack.run(sent(stack.w, data, half_close=True))
    statuses = [int(status) for status in STATUS.findall(got)]
    assert len(statuses) <= 1 + (b"100 Continue" in got)
    assert all(status in (100, 200) or 400 <= status < 500 for status in statuses)
