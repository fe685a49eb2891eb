"""The price of the cloud, over HTTP: true, a lie, or nothing at all."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import orjson

from orchestrator.signals.prices import read_feed
from tests.benchmarks.chaos.records import FAILURES, Answer
from tests.price_server import answer

LIES = ("thousandfold", "thousandth", "negative", "nan", "old")
"""Each of which must be refused, however often it comes."""
FLICKER = "flicker"
"""Every other answer is a third of the truth: none confirms the one before."""
HANG = "hang"
TIME_SCALE = 60
"""An hour of prices passes in a minute."""


class PriceFeed:
    """Says what it is told to say, and keeps what it said."""

    def __init__(self, market: Path, began_s: float) -> None:
        """Raises FeedError."""
        self.does = "truth"
        self.answers: list[Answer] = []
        self.port = 0
        self._rows = read_feed(market)
        self._began_s = began_s
        self._asked = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def truth(self, now_s: float) -> float:
        """USD per GPU-hour. The market begins anew when it is over."""
        at_s = (now_s - self._began_s) * TIME_SCALE % max(self._rows[-1][0], 1)
        return [usd for time_s, usd in self._rows if time_s <= at_s or time_s == 0][-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            if self.does == HANG:
                await reader.read()
            else:
                writer.write(self._answer(time.time()))
                await writer.drain()
        writer.close()

    def _answer(self, now_s: float) -> bytes:
        truth, kind = self.truth(now_s), self.does
        self._asked += 1
        if kind == FLICKER and self._asked % 2:
            kind = "truth"
        if kind in FAILURES:
            self.answers.append(Answer(now_s, kind, None))
            return answer(b"{}", "500 Internal Server Error")
        usd, made_at_s = {
            "truth": (truth, now_s),
            "thousandfold": (truth * 1000, now_s),
            "thousandth": (truth / 1000, now_s),
            "negative": (-truth, now_s),
            "nan": (None, now_s),
            "old": (truth / 3, now_s - 3600),
            FLICKER: (truth * 0.3, now_s),
        }[kind]
        self.answers.append(Answer(now_s, kind, usd))
        said = {"usd_per_gpu_hour": "NaN" if usd is None else usd, "made_at": made_at_s}
        return answer(orjson.dumps(said))
