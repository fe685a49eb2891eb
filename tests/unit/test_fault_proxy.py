"""What the fault proxy does to bytes, and to connections."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fault_proxy import (
    CORRUPTING,
    Close,
    Fault,
    FaultProxy,
    Hold,
    Kind,
    Send,
    Spoiler,
    boundaries,
    spoiled,
)

ANSWER = b"HTTP/1.1 200 OK\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, b"abcdef"),
        (Fault(Kind.CUT, 2), b"ab"),
        (Fault(Kind.CUT, 0), b""),
        (Fault(Kind.RESET, 6), b"abcdef"),
        (Fault(Kind.STALL, 3), b"abc"),
        (Fault(Kind.DELAY, 3), b"abcdef"),
        (Fault(Kind.DRIBBLE, 3), b"abcdef"),
        (Fault(Kind.FLIP, 1, data=b"\x01\x02"), b"aca" + b"def"),
        (Fault(Kind.INSERT, 3, data=b"--"), b"abc--def"),
        (Fault(Kind.DROP, 1, length=3), b"aef"),
        (Fault(Kind.DROP, 5, length=3), b"abcde"),
        (Fault(Kind.REPEAT, 4, length=2), b"abcdcdef"),
        (Fault(Kind.RESEND, 2), b"ababcdef"),
        (Fault(Kind.CUT, 9), b"abcdef"),
    ],
)
def test_a_fault_does_what_its_name_says(fault: Fault | None, expected: bytes) -> None:
    assert spoiled(b"abcdef", fault) == expected


@given(
    st.binary(min_size=1, max_size=30),
    st.builds(
        Fault,
        st.sampled_from(list(Kind)),
        st.integers(0, 35),
        st.integers(0, 9),
        st.binary(max_size=5),
    ),
    st.lists(st.integers(1, 29), max_size=5),
)
def test_a_fault_does_the_same_however_the_answer_arrives(
    answer: bytes, fault: Fault, cuts: list[int]
) -> None:
    spoiler, sent, ended = Spoiler(fault), b"", False
    edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    for start, end in pairwise(edges):
        for step in spoiler.feed(answer[start:end]):
            ended = ended or isinstance(step, Hold | Close)
            if isinstance(step, Send) and not ended:
                sent += step.data
    assert sent == spoiled(answer, fault)
    if fault.kind not in CORRUPTING:
        assert answer.startswith(sent)


def test_the_boundaries_of_chunks_are_found() -> None:
    pieces = [b"HTTP/1.1 200 OK\r\n\r\n", b"3\r\n", b"abc", b"\r\n", b"0\r\n", b"\r\n"]
    ends = [sum(map(len, pieces[: n + 1])) for n in range(len(pieces))]
    assert boundaries(ANSWER) == [end for end in ends if end <= len(ANSWER)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.CUT, b"ab"),
        (Kind.RESET, ConnectionResetError),
        (Kind.STALL, TimeoutError),
        (Kind.DRIBBLE, b"abcdef"),
        (Kind.RESEND, b"ababcdef"),
    ],
)
def test_each_answer_of_a_connection_meets_the_fault_that_is_next(
    kind: Kind, expected: bytes | type[Exception]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(b"abcdef")
        writer.close()

    async def inside() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with FaultProxy("127.0.0.1", port, [None, Fault(kind, 2)]) as proxy:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(proxy.url.split(":")[2])
            )
            writer.write(b"first")
            assert await reader.readexactly(6) == b"abcdef"
            writer.write(b"second")
            if isinstance(expected, bytes):
                assert await reader.readexactly(len(expected)) == expected
            else:
                with pytest.raises(expected):
                    async with asyncio.timeout(0.3):
                        await reader.readexactly(6)
            assert bytes(proxy.answers[1].given) == b"abcdef"
            writer.close()
        server.close()

    asyncio.run(inside())
