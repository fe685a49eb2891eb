"""A price feed over real HTTP that does what it is told: answers, lies, hangs, drips."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.signals.prices_http import MAX_BYTES

FAULTS = (
    "hang",
    "hang in head",
    "drip",
    "close",
    "500",
    "redirect",
    "huge",
    "endless head",
    "not http",
    "not json",
    "nothing",
)


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class PriceServer:
    def __init__(self) -> None:
        self.does: str | float = "hang"
        """A fault, or the price that it answers."""
        self.made_at_s: float | None = None
        self.asked = asyncio.Event()
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/price"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            self.asked.set()
            if b" /true " in request.splitlines()[0]:
                # Where the redirect leads.
                writer.write(answer(b'{"usd": 2.0}'))
            else:
                await self._answer(reader, writer)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self.does:
            case float(figure):
                document = {"usd": f"{figure:.17g}".replace("inf", "Inf").replace("nan", "NaN")}
                at = {} if self.made_at_s is None else {"at": self.made_at_s}
                writer.write(answer(json.dumps(document | at).encode()))
            case "hang" | "hang in head":
                if self.does == "hang in head":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
                await reader.read()
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.005)
            case "500":
                writer.write(answer(b'{"usd": 2.0}', "500 Internal Server Error"))
            case "redirect":
                location = f"location: http://127.0.0.1:{self.port}/true"
                writer.write(answer(b'{"usd": 2.0}', "302 Found", location))
            case "huge":
                writer.write(answer(b'{"usd": 2.0}' + b" " * (2 * MAX_BYTES)))
            case "endless head":
                writer.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000)
                await reader.read()
            case "not http":
                writer.write(b"\0\xff" * 100)
            case "not json":
                writer.write(answer(b"<html>sign in</html>"))
            case "nothing":
                writer.write(answer(b"{}"))


@asynccontextmanager
async def price_server() -> AsyncIterator[PriceServer]:
    told = PriceServer()
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
