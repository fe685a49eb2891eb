"""A TCP proxy that spoils what a server answers, byte by byte as it was told beforehand.

    async with FaultProxy("127.0.0.1", 8000) as proxy:
        proxy.faults.append(Fault(Kind.CUT, at=100))
        ...  # the next answer through `proxy.url` ends after 100 bytes

What a fault does to bytes is said by `Spoiler`, which is pure; the proxy only carries it out.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self


class Kind(StrEnum):
    CUT = "cut"
    """The connection is closed in order."""
    RESET = "reset"
    """It is closed by a reset, and what the receiver has not read yet is lost to it."""
    STALL = "stall"
    """Nothing more comes; the connection stays open."""
    DELAY = "delay"
    """The rest comes after `wait_s`."""
    DRIBBLE = "dribble"
    """The rest comes in packets of one byte."""
    SPLIT = "split"
    """The rest comes in a packet of its own."""
    FLIP = "flip"
    """The next bytes are combined with `data` by exclusive or."""
    INSERT = "insert"
    """`data` comes in between."""
    DROP = "drop"
    """The next `length` bytes are left out."""
    REPEAT = "repeat"
    """The last `length` bytes come again."""
    RESEND = "resend"
    """All bytes since the answer's first come again."""


CORRUPTING = frozenset({Kind.FLIP, Kind.INSERT, Kind.DROP, Kind.REPEAT, Kind.RESEND})
"""Kinds after which other bytes arrive than were sent."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    at: int
    """Bytes of the answer, head included, that pass before."""
    length: int = 1
    data: bytes = b"\x01"
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing after it, and the connection stays open."""


@dataclass(frozen=True, slots=True)
class Close:
    reset: bool


Step = Send | Wait | Hold | Close


class Spoiler:
    """One answer's bytes as they become by a fault; None changes nothing."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._happened = fault is None
        self._passed = bytearray()
        self._to_drop = 0
        self._to_flip = b""
        self._dribbles = False

    def feed(self, data: bytes) -> list[Step]:
        """What becomes of the answer's next bytes."""
        fault = self._fault
        if self._happened or fault is None or len(self._passed) + len(data) < fault.at:
            return self._pass(data)
        self._happened = True
        before = data[: fault.at - len(self._passed)]
        steps = self._pass(before)
        steps += self._happen(fault)
        return steps + self._pass(data[len(before) :])

    def _pass(self, data: bytes) -> list[Step]:
        self._passed += data
        dropped = min(self._to_drop, len(data))
        self._to_drop -= dropped
        data = data[dropped:]
        flips, self._to_flip = self._to_flip[: len(data)], self._to_flip[len(data) :]
        flipped = bytes(a ^ b for a, b in zip(data, flips, strict=False))
        data = flipped + data[len(flipped) :]
        if self._dribbles:
            return [Send(data[i : i + 1]) for i in range(len(data))]
        return [Send(data)] if data else []

    def _happen(self, fault: Fault) -> list[Step]:
        match fault.kind:
            case Kind.CUT | Kind.RESET:
                return [Close(reset=fault.kind is Kind.RESET)]
            case Kind.STALL:
                return [Hold()]
            case Kind.DELAY | Kind.SPLIT:
                return [Wait(fault.wait_s)]
            case Kind.DRIBBLE:
                self._dribbles = True
            case Kind.FLIP:
                self._to_flip = fault.data
            case Kind.DROP:
                self._to_drop = fault.length
            case Kind.INSERT:
                return [Send(fault.data)]
            case Kind.REPEAT:
                again = bytes(self._passed[-fault.length :]) if fault.length else b""
                return [Send(again)] if again else []
            case Kind.RESEND:
                return [Send(bytes(self._passed))] if self._passed else []
        return []


def spoiled(answer: bytes, fault: Fault | None) -> bytes:
    """What arrives of a whole answer."""
    sent = b""
    for step in Spoiler(fault).feed(answer):
        if isinstance(step, Hold | Close):
            break
        if isinstance(step, Send):
            sent += step.data
    return sent


def boundaries(answer: bytes) -> list[int]:
    """Of an answer in chunks: where its head, and each chunk's size, data and all of it end."""
    place = answer.index(b"\r\n\r\n") + 4
    found = [place]
    while place < len(answer):
        size_end = answer.index(b"\r\n", place) + 2
        data_end = size_end + int(answer[place:size_end], 16)
        place = data_end + 2
        found += [size_end, data_end, place]
    return sorted({end for end in found if end <= len(answer)})


@dataclass(eq=False)
class Answer:
    """As the server gave it, and as it went on."""

    fault: Fault | None
    given: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)


class FaultProxy:
    """Each answer meets the first of `faults`, which its question takes; without one it passes as
    it is. HTTP is known to it in one thing alone: an answer ends where the client speaks again."""

    def __init__(self, host: str, port: int, faults: Sequence[Fault | None] = ()) -> None:
        self._host, self._port = host, port
        self.faults: deque[Fault | None] = deque(faults)
        self.answers: list[Answer] = []
        """Those that began. An answer is put where the answers were kept when it was asked for."""
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: socket.socket = writer.get_extra_info("socket")
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        exchange = _Exchange(self, writer)
        asking = asyncio.create_task(exchange.ask(reader, server_writer))
        answering = asyncio.create_task(exchange.answer(server_reader))
        try:
            # Who stalls waits for the client to go.
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering):
                task.cancel()
            for each in (writer, server_writer):
                with suppress(OSError):
                    each.close()


class _Exchange:
    def __init__(self, proxy: FaultProxy, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writer = writer
        self._begin(None)

    def _begin(self, fault: Fault | None) -> None:
        self._answer = Answer(fault)
        self._spoiler = Spoiler(fault)
        self._kept = self._proxy.answers

    async def ask(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        is_new = True
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_new or self._answer.given:
                    faults = self._proxy.faults
                    self._begin(faults.popleft() if faults else None)
                    is_new = False
                server.write(data)
                await server.drain()

    async def answer(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                # The client may speak again while it is carried out.
                answer = self._answer
                if not answer.given:
                    self._kept.append(answer)
                answer.given += data
                for step in self._spoiler.feed(data):
                    if not await self._carry_out(step, answer):
                        return
            await self._writer.drain()

    async def _carry_out(self, step: Step, answer: Answer) -> bool:
        """Whether anything may come after it."""
        match step:
            case Send(data):
                answer.sent += data
                self._writer.write(data)
                await self._writer.drain()
                await asyncio.sleep(0)
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Hold():
                await asyncio.Event().wait()
            case Close(reset):
                if reset:
                    opened: socket.socket = self._writer.get_extra_info("socket")
                    linger = struct.pack("ii", 1, 0)
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
        return True
