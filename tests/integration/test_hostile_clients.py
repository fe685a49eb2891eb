"""Clients that mean harm: each is refused in the shape of every error, or cut off, within its
limits; and meanwhile a client that behaves is served."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson
import psutil
import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.gateway import request_body
from orchestrator.gateway.connections import ConnectionLimits
from tests.integration.engines import World, world
from tests.integration.running import Running, running

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n"
HEAD = CHAT + b"host: a\r\n"
AFTER = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = ConnectionLimits(head_s=2, linger_s=0.5, keep_alive_s=2)
    with running(
        tmp_path_factory.mktemp("hostile"),
        limits=limits,
        replacing={"max_body_bytes: 2000": "max_body_bytes: 400000"},
    ) as made:
        yield made


async def connect(w: World) -> Connection:
    return await asyncio.open_connection("127.0.0.1", int(w.url.rsplit(":", 1)[1]))


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Until the server closes. Raises TimeoutError when it does not."""
    got = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                got += part
    return got


async def sent(w: World, data: bytes, half_close: bool = False) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    reader, writer = await connect(w)
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()
    got = await read_to_end(reader)
    writer.close()
    return got


def refusal(got: bytes) -> tuple[int, str]:
    """Status and code of the one answer that there is, in the shape of every error."""
    assert len(STATUS.findall(got)) == 1, got
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: " in head
    error = orjson.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def authorized(w: World, path: bytes = b"/v1/chat/completions") -> bytes:
    key = w.keys["open"].encode()
    return b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n" % (path, key)


async def serves(w: World) -> None:
    async with w.post() as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"] == " t0 t1 t2"


@asynccontextmanager
async def served_meanwhile(w: World) -> AsyncIterator[None]:
    """A client that behaves, in a connection that it keeps and in fresh ones, all the while."""
    done, count = asyncio.Event(), 0

    async def behave() -> None:
        nonlocal count
        while not done.is_set():
            await serves(w)
            answer = await sent(w, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert STATUS.findall(answer) == [b"200"]
            count += 1
            await asyncio.sleep(0.01)

    behaving = asyncio.create_task(behave())
    try:
        yield
    finally:
        done.set()
        await behaving
    assert count


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


def test_a_head_of_many_or_large_headers_is_refused_however_it_comes(stack: Running) -> None:
    large = HEAD + b"x: " + b"a" * 40_000 + b"\r\n\r\n"
    many = HEAD + b"".join(b"x-%d: a\r\n" % i for i in range(1000)) + b"\r\n"
    target = b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    blank = b"\r\n" * 1_000_000
    for data in (large, many, target, blank):
        got = stack.run(sent(stack.w, data + AFTER))
        assert refusal(got) == (431, "headers_too_large")
    endless = stack.run(sent(stack.w, HEAD + b"x: " + b"a" * 20_000_000))
    assert refusal(endless) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "overhead",
    [
        b"".join(b"x-%d: a\r\n" % i for i in range(100_000)),
        b"x: " + b"a" * 1_000_000,
    ],
    ids=["many", "large"],
)
def test_a_flood_of_trailers_is_refused(stack: Running, overhead: bytes) -> None:
    head = authorized(stack.w) + b"transfer-encoding: chunked\r\n\r\n1\r\n \r\n0\r\n"
    assert refusal(stack.run(sent(stack.w, head + overhead))) == (400, "invalid_http")


def test_a_flood_of_chunk_extensions_is_refused(stack: Running) -> None:
    head = authorized(stack.w) + b"transfer-encoding: chunked\r\n\r\n"
    flood = (b"1;" + b"a" * 1000 + b"\r\n \r\n") * 1000
    assert refusal(stack.run(sent(stack.w, head + flood))) == (400, "invalid_http")


def test_a_body_in_chunks_of_one_byte_is_no_flood(stack: Running) -> None:
    body = b'{"model": "m", "max_tokens": 3, "messages": [{"content": "%b"}]}' % (b"a " * 50_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = authorized(stack.w) + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    got = stack.run(sent(stack.w, head + chunks))
    # The model's context is smaller: the engine has read it.
    assert STATUS.findall(got) == [b"400"]
    assert b"context length" in got


MEGABYTE = b"a" * 1_000_000


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_100_megabytes_is_refused_and_not_kept(stack: Running, declared: bool) -> None:
    framing = b"content-length: 100000000" if declared else b"transfer-encoding: chunked"
    rss_bytes = psutil.Process().memory_info().rss

    async def test() -> bytes:
        reader, writer = await connect(stack.w)
        writer.write(authorized(stack.w) + framing + b"\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(100):
                piece = MEGABYTE if declared else b"%x\r\n%b\r\n" % (len(MEGABYTE), MEGABYTE)
                writer.write(piece)
                await writer.drain()
        got = await read_to_end(reader)
        writer.close()
        return got

    assert refusal(stack.run(test())) == (413, "body_too_large")
    assert psutil.Process().memory_info().rss - rss_bytes < 50_000_000


def test_a_body_that_the_client_says_is_short_ends_there(stack: Running) -> None:
    data = authorized(stack.w) + b"content-length: 2\r\n\r\n{}" + MEGABYTE * 10
    got = stack.run(sent(stack.w, data))
    assert STATUS.findall(got) == [b"400"]
    assert b"missing_field" in got


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_come_is_not_waited_for(
    stack: Running, monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.3)
    got = stack.run(sent(stack.w, authorized(stack.w) + framing + b"\r\n\r\n"))
    assert refusal(got) == (408, "body_timeout")


def test_who_waits_to_be_told_to_send_a_body_is_told_what_is_wrong_instead(stack: Running) -> None:
    expecting = b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n"
    got = stack.run(sent(stack.w, HEAD + expecting))
    assert refusal(got) == (401, "missing_api_key")
    too_large = b"expect: 100-continue\r\ncontent-length: 500000\r\n\r\n"
    got = stack.run(sent(stack.w, authorized(stack.w) + too_large))
    assert refusal(got) == (413, "body_too_large")


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


FRAGMENTS = st.sampled_from(
    [
        *(b"GET", b"POST", b"PUT", b"CONNECT", b"PRI", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\0"),
        *(b"/healthz", b"/v1/chat/completions", b"*", b"http://a/", b"HTTP/1.1", b"HTTP/1.0"),
        *(b"host: a\r\n", b"host: b\r\n", b"content-length: 3\r\n", b"content-length: -1\r\n"),
        *(b"transfer-encoding: chunked\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n"),
        *(b"connection: close\r\n", b"expect: 100-continue\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"\xff"),
    ]
)
WHOLE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


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


def test_slow_heads_are_cut_off_and_harm_nobody(tmp_path: Path) -> None:
    async def dribble(w: World) -> bytes:
        reader, writer = await connect(w)
        reading = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            for byte in HEAD + b"x: " + b"a" * 1000:
                if reading.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        got = await reading
        writer.close()
        return got

    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(head_s=0.5, linger_s=0.3)) as w:
            async with asyncio.timeout(30), served_meanwhile(w):
                answers = await asyncio.gather(*(dribble(w) for _ in range(200)))
            assert {refusal(got) for got in answers} == {(408, "header_timeout")}

    uvloop.run(inside())


def test_slow_bodies_are_cut_off_and_harm_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "BODY_TIMEOUT_S", 0.5)

    async def dribble(w: World) -> bytes:
        reader, writer = await connect(w)
        writer.write(authorized(w) + b"content-length: 1000\r\n\r\n")
        reading = asyncio.create_task(read_to_end(reader))
        with suppress(ConnectionError):
            while not reading.done():
                writer.write(b"a")
                await asyncio.sleep(0.05)
        got = await reading
        writer.close()
        return got

    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(linger_s=0.3), max_open=300) as w:
            async with asyncio.timeout(30), served_meanwhile(w):
                answers = await asyncio.gather(*(dribble(w) for _ in range(200)))
            assert {refusal(got) for got in answers} == {(408, "body_timeout")}

    uvloop.run(inside())


async def still_open(connections: list[Connection]) -> int:
    """Of connections to which nothing was ever said, those that the server has not closed."""

    async def is_open(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(0.05):
                while await reader.read(1000):
                    pass
        except TimeoutError:
            return True
        except ConnectionError:
            pass
        return False

    return sum(await asyncio.gather(*(is_open(reader) for reader, _ in connections)))


def test_of_a_flood_of_connections_only_so_many_stay_and_new_ones_are_served(
    tmp_path: Path,
) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(connections=100)) as w:
            async with served_meanwhile(w):
                flood = [await connect(w) for _ in range(2000)]
                for _, writer in flood[::2]:
                    writer.write(b"GET /healthz HTTP/1.1\r\n")
            assert 0 < await still_open(flood) <= 100
            await serves(w)
            for _, writer in flood:
                writer.close()

    uvloop.run(inside())


def test_two_thousand_idle_connections_harm_nobody_and_are_closed_in_time(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(head_s=3, linger_s=0.3)) as w:
            process = psutil.Process()
            files = process.num_fds()
            flood = [await connect(w) for _ in range(2000)]
            async with served_meanwhile(w):
                assert await still_open(flood) == 2000
            async with asyncio.timeout(20):
                while await still_open(flood):
                    await asyncio.sleep(0.1)
            for _, writer in flood:
                writer.close()
            async with asyncio.timeout(20):
                while process.num_fds() > files + 10:
                    await asyncio.sleep(0.1)

    uvloop.run(inside())


def test_a_connection_too_many_beside_busy_ones_is_told_to_come_back(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, home="hang", limits=ConnectionLimits(connections=2)) as w:
            waiting = [asyncio.create_task(_status(w)) for _ in range(2)]
            while len(w.home.received) < 2:
                await asyncio.sleep(0.01)
            reader, writer = await connect(w)
            got = await read_to_end(reader)
            assert refusal(got) == (429, "too_many_connections")
            assert b"\r\nretry-after: " in got
            writer.close()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _status(w: World) -> int:
        async with w.post("closed") as answer:
            return int(answer.status)

    uvloop.run(inside())


def test_a_kept_connection_is_closed_when_nothing_more_comes(tmp_path: Path) -> None:
    async def inside() -> None:
        async with world(tmp_path, limits=ConnectionLimits(keep_alive_s=0.2)) as w:
            got = await sent(w, WHOLE)
            assert STATUS.findall(got) == [b"200"]

    uvloop.run(inside())
