"""Many streams for long, through a gateway in a process of its own: once it is warm its memory,
tasks and files stay what they are, and no stream is lost.

    python -m tests.benchmarks.soak --minutes 60

2,000 clients ask again as soon as they have an answer of 64 to 256 tokens; the engine gives each
running stream a token at every step. An engine that gives a stream 30 tokens a second gives it
108,000 an hour; 2,000 streams of an hour would be 216 million, more than two cores carry in six
hours. So the steps are as many a second as the machine keeps up with (5 by default: 10,000 tokens a
second), and the gateway is compared with itself: at that rate 600,000 tokens pass in a minute.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import uvloop

from orchestrator.config import keys
from orchestrator.gateway.app import Gateway
from orchestrator.gateway.server import listen, server
from tests.integration.engines import CONFIG, apply

SAMPLE_S = 1.0
WARM = 0.4
"""Of the run, before the gateway is taken to be warm."""
RSS_TOLERANCE_BYTES = 12_000_000
RSS_TOLERANCE = 0.05
TOKENS = (64, 256)


def _event(choices: list[dict[str, Any]], **more: object) -> bytes:
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    event = b"data: " + orjson.dumps({**about, "choices": choices, **more}) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + _event([_choice({"role": "assistant", "content": ""})])
)
TOKEN = _event([_choice({"content": " lorem"})])
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Engine:
    """Gives each running stream a token at every step."""

    def __init__(self, steps_per_s: float) -> None:
        self._step_s = 1 / steps_per_s
        self._left: dict[EngineConnection, int] = {}
        self.tokens = 0

    def __call__(self) -> "EngineConnection":
        return EngineConnection(self)

    def begin(self, connection: "EngineConnection", tokens: int) -> None:
        self._left[connection] = tokens

    def forget(self, connection: "EngineConnection") -> None:
        self._left.pop(connection, None)

    async def run(self) -> None:
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + self._step_s, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
            for number, (connection, left) in enumerate(list(self._left.items())):
                if number % 100 == 99:
                    await asyncio.sleep(0)
                if connection not in self._left:
                    continue
                self.tokens += 1
                connection.transport.write(TOKEN)
                self._left[connection] = left - 1
                if left == 1:
                    del self._left[connection]
                    connection.end()


class EngineConnection(asyncio.Protocol):
    transport: Any

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._data = b""
        self._asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._engine.forget(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self._data = b""
        self._asked = orjson.loads(body)["max_tokens"]
        self.transport.write(HEAD)
        self._engine.begin(self, self._asked)

    def end(self) -> None:
        usage = {"prompt_tokens": 4, "completion_tokens": self._asked, "total_tokens": 0}
        last = _event([_choice({"content": ""}, "length")]) + _event([], usage=usage)
        self.transport.write(last + DONE)


@dataclass
class Report:
    errors: list[str] = field(default_factory=list)
    answers: int = 0
    tokens: int = 0
    elapsed_s: float = 0
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Seconds since the start, and the gateway's resident bytes, files and tasks."""

    def warm(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        samples = np.array(self.samples, dtype=np.float64)
        return samples[samples[:, 0] >= WARM * samples[-1, 0]]

    def growth(self) -> list[float]:
        """Of resident bytes, files and tasks from the first to the last of the warm samples, by
        the slope through all of them."""
        warm = self.warm()
        seconds = warm[:, 0] - warm[0, 0]
        return [float(np.polyfit(seconds, warm[:, n], 1)[0] * seconds[-1]) for n in (1, 2, 3)]

    def faults(self) -> list[str]:
        found = list(self.errors[:5])
        rss_bytes, files, tasks = self.growth()
        allowed = max(RSS_TOLERANCE_BYTES, RSS_TOLERANCE * float(self.warm()[0, 1]))
        if rss_bytes > allowed:
            found.append(f"memory grows: {rss_bytes / 1e6:.1f} MB")
        streams = float(np.median(self.warm()[:, 3]))
        if files > max(20, 0.02 * streams):
            found.append(f"files grow: {files:.0f}")
        if tasks > max(20, 0.02 * streams):
            found.append(f"tasks grow: {tasks:.0f}")
        return found

    def __str__(self) -> str:
        warm = self.warm()
        rss_bytes, files, tasks = self.growth()
        return (
            f"{self.answers:,} answers, {self.tokens:,} tokens in {self.elapsed_s:.0f} s "
            f"({self.tokens / self.elapsed_s:,.0f} a second), {len(self.errors)} errors; gateway: "
            f"{warm[0, 1] / 1e6:.1f} MB when warm, {warm[-1, 1] / 1e6:.1f} MB at the end, by slope "
            f"{rss_bytes / 1e6:+.1f} MB, {files:+.0f} of {warm[-1, 2]:.0f} files, "
            f"{tasks:+.0f} of {warm[-1, 3]:.0f} tasks"
        )


class Client(asyncio.Protocol):
    """Asks again as soon as its answer is whole."""

    transport: Any

    def __init__(self, head: bytes, report: Report, until_s: float, chance: random.Random) -> None:
        self._head = head
        self._report = report
        self._until_s = until_s
        self._chance = chance
        self._end = b""
        self._start = b""
        self._asked = self._got = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._report.errors.append(f"a connection was lost: {exc}, {self._start[:300]!r}")
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        if len(self._start) < 12:
            self._start += data
            if not self._start.startswith(b"HTTP/1.1 200"[: len(self._start)]):
                self._fail()
                return
        self._got += data.count(b" lorem")
        self._end = (self._end + data)[-40:]
        if not self._end.endswith(b"0\r\n\r\n"):
            return
        if b"data: [DONE]\n\n" not in self._end or self._got != self._asked:
            self._fail()
            return
        self._report.answers += 1
        self._report.tokens += self._got
        if time.monotonic() < self._until_s:
            self._ask()
        else:
            self.done.set_result(None)
            self.transport.close()

    def _ask(self) -> None:
        self._asked, self._got = self._chance.randint(*TOKENS), 0
        self._start = self._end = b""
        body = orjson.dumps(
            {
                "model": "m",
                "messages": [{"role": "user", "content": f"hi {self._chance.random()}"}],
                "max_tokens": self._asked,
                "stream": True,
            }
        )
        self.transport.write(self._head + b"content-length: %d\r\n\r\n" % len(body) + body)

    def _fail(self) -> None:
        self._report.errors.append(f"{self._got} of {self._asked}: {self._start + self._end!r}")
        self.done.set_result(None)
        self.transport.abort()


def serve(state: Path) -> None:
    """The gateway's process. Says where it listens, then how many tasks it has."""

    async def inside() -> None:
        listener = listen("http://127.0.0.1:0")
        http = server(Gateway(state))
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        while not http.started:
            await asyncio.sleep(0.01)
        print(listener.getsockname()[1], flush=True)
        while not serving.done():
            print(len(asyncio.all_tasks()), flush=True)
            await asyncio.sleep(SAMPLE_S)
        await serving

    uvloop.run(inside())


@asynccontextmanager
async def gateway(state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.soak", "--serve", str(state)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"ORCHESTRATOR_SESSION_KEY": "a key for benchmarks alone"},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def soak(state: Path, streams: int, seconds: float, steps_per_s: float) -> Report:
    """`state`: an empty directory for the gateway's configuration and records."""
    engine, report = Engine(steps_per_s), Report()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(engine, "127.0.0.1", 0, backlog=4096)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    text = CONFIG.format(
        home=url, away=url, controller="http://127.0.0.1:9", total_s=600, max_open=2 * streams
    )
    text = text.replace("first_token_s: 1", "first_token_s: 60")
    text = text.replace("between_tokens_s: 1", "between_tokens_s: 60")
    text = text.replace("max_num_seqs: 4", f"max_num_seqs: {streams}")
    # No controller sends snapshots; requests shall not change their place for it on the way.
    text = text.replace("\nworkloads:", "\npolicy: {snapshot_stale_s: 1000000}\nworkloads:")
    (state / "all.yaml").write_text(text)
    _, key = keys.create(state, "open")
    apply(state)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\n"
    ).encode()
    stepping = asyncio.create_task(engine.run())
    async with gateway(state) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        started_s = time.monotonic()
        until_s = started_s + seconds
        sampling = asyncio.create_task(_sample(process, report, started_s))
        clients = []
        for _ in range(streams):
            _, client = await loop.create_connection(
                lambda: Client(head, report, until_s, random.Random()), "127.0.0.1", port
            )
            clients.append(client)
        await asyncio.wait([client.done for client in clients])
        report.elapsed_s = time.monotonic() - started_s
        # The last streams end one by one: what is measured then is not what was meant.
        report.samples = [sample for sample in report.samples if sample[0] <= seconds]
        sampling.cancel()
    stepping.cancel()
    listening.close()
    return report


async def _sample(process: asyncio.subprocess.Process, report: Report, started_s: float) -> None:
    assert process.stdout is not None
    watched = psutil.Process(process.pid)
    while line := await process.stdout.readline():
        with watched.oneshot():
            rss_bytes, files = watched.memory_info().rss, watched.num_fds()
        report.samples.append((time.monotonic() - started_s, rss_bytes, files, int(line)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--steps-per-second", type=float, default=5, help="tokens of each stream")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(
            soak(Path(directory), options.streams, 60 * options.minutes, options.steps_per_second)
        )
    for at_s, rss_bytes, files, tasks in report.samples[:: max(len(report.samples) // 12, 1)]:
        print(f"{at_s:6.0f} s {rss_bytes / 1e6:8.1f} MB {files:6} files {tasks:6} tasks")
    print(report)
    if faults := report.faults():
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
