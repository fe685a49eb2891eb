"""Clients that stream for as long as something is done to the stack, and what became of them."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import openai

from tests.e2e.conftest import Stack

BOUND_S = 150
"""Within which every request has its end, whatever was done."""
MOST_TOKENS = 48


@dataclass(slots=True)
class Stream:
    workload: str
    request_id: str
    most_tokens: int
    started_s: float
    ended_s: float = 0.0
    tokens: int = 0
    """Chunks with text."""
    text: str = field(default="", repr=False)
    connects: int = 1
    pool: str = ""
    outcome: str = "open"
    """`whole`, `typed` (it ended with an error event of ours), `refused` (before its begin, with
    the time to ask again), or what else it was: broken."""
    detail: str = ""

    @property
    def is_broken(self) -> bool:
        return self.outcome not in ("whole", "typed", "refused")


@dataclass
class Streaming:
    """Each client asks one stream after the other, with OpenAI's client as it is."""

    stack: Stack
    clients: tuple[str, ...] = ("assistant", "assistant", "records", "records")
    """Their workloads. As many as an engine takes at once."""
    streams: list[Stream] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._name = f"chaos-{time.time_ns():x}"
        self._threads = [
            threading.Thread(target=self._go_on, args=(workload, number))
            for number, workload in enumerate(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * BOUND_S)
        print(f"\n{self.summary()}")
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"

    def wait_for_streams(self, more: int = 8) -> None:
        """Until so many more have ended whole."""
        enough = self.count("whole") + more
        deadline_s = time.monotonic() + BOUND_S
        while self.count("whole") < enough:
            assert time.monotonic() < deadline_s, f"no streams: {self.summary()}"
            time.sleep(0.1)

    def count(self, outcome: str) -> int:
        return sum(stream.outcome == outcome for stream in tuple(self.streams))

    def summary(self) -> str:
        streams = tuple(self.streams)
        counts = Counter(stream.outcome for stream in streams)
        retried = sum(stream.connects > 1 for stream in streams)
        pools = Counter(s.pool for s in streams if s.pool)
        return f"{len(streams)} streams: {dict(counts)}, {retried} connected anew; {dict(pools)}"

    def _go_on(self, workload: str, number: int) -> None:
        client, turn = self.stack.client(workload), 0
        while not self._stop.is_set():
            turn += 1
            stream = one(client, workload, f"{self._name}-{number}-{turn}", MOST_TOKENS)
            self.streams.append(stream)
            if stream.outcome != "whole":
                time.sleep(0.5)


def one(client: openai.OpenAI, workload: str, request_id: str, most_tokens: int) -> Stream:
    """Asks one stream and reads it to its end."""
    stream = Stream(workload, request_id, most_tokens, time.monotonic())
    while True:
        try:
            _read(client.with_options(timeout=BOUND_S), stream)
        except openai.APIConnectionError as error:
            # Nothing had been said yet: what OpenAI's client would try again by itself.
            if stream.tokens == 0 and stream.connects == 1:
                stream.connects += 1
                continue
            stream.outcome, stream.detail = "lost", repr(error.__cause__ or error)
        except openai.APIStatusError as error:
            is_told = int(error.response.headers.get("retry-after", 0)) > 0
            refused = error.status_code in (429, 503) and is_told
            stream.outcome = "refused" if refused else f"status {error.status_code}"
            stream.detail = str(error)
        except openai.APIError as error:
            stream.outcome = "typed" if error.code == "stream_interrupted" else "lost"
            stream.detail = str(error)
        except Exception as error:
            stream.outcome, stream.detail = "lost", repr(error)
        break
    stream.ended_s = time.monotonic()
    return stream


def _read(client: openai.OpenAI, stream: Stream) -> None:
    asked: Any = {
        "model": "tiny",
        "messages": [{"role": "user", "content": f"{stream.request_id} goes on and on"}],
        "max_tokens": stream.most_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_headers": {"x-request-id": stream.request_id},
        "extra_body": {"ignore_eos": True},
    }
    finished, usage = "", None
    answer = client.chat.completions.with_raw_response.create(**asked)
    stream.pool = answer.headers.get("x-orchestrator-pool", "")
    for chunk in answer.parse():
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finished = choice.finish_reason or finished
            stream.tokens += bool(choice.delta.content)
            stream.text += choice.delta.content or ""
    is_whole = finished == "length" and usage and usage.completion_tokens == stream.most_tokens
    stream.outcome = "whole" if is_whole else "cut"
    stream.detail = f"{finished} {usage}"
