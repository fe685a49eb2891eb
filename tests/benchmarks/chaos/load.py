"""Clients that stream all the time, more of them in a surge."""

import random
import threading
import time
from typing import Self

from tests.benchmarks.chaos.records import Request
from tests.e2e.conftest import Stack
from tests.e2e.streams import BOUND_S, Stream, one

STEADY = ("assistant", "records")
"""Few enough for a burst to end: home counts as calm with so many."""
SURGE = ("assistant",) * 12 + ("records",)
PAUSE_S = 0.3
REFUSED_S = 0.5
TOKENS = (32, 48, 48, 160)
TWICE = 32
"""Characters that the model, which says random words, does not say twice by itself."""
DISTINCT = 10


class Load:
    """Each client asks one stream after the other, so that an outage piles nothing up."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.requests: list[Request] = []
        self._stack = stack
        self._stopped, self._surging = threading.Event(), threading.Event()
        self._run = f"chaos-{time.time_ns():x}"
        self._threads = [
            threading.Thread(
                target=self._ask, args=(who, number, number >= len(STEADY), seed), daemon=True
            )
            for number, who in enumerate(STEADY + SURGE)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def stop(self) -> int:
        """Lets every stream end. Returns how many do not."""
        self._stopped.set()
        deadline_s = time.monotonic() + 2 * BOUND_S
        for thread in self._threads:
            thread.join(max(0, deadline_s - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def surge(self, on: bool) -> None:
        self._surging.set() if on else self._surging.clear()

    def served(self, workload: str, pool: str, since_s: float) -> bool:
        """Whether a request that began after a moment got its whole answer there."""
        return any(
            r.outcome == "whole"
            and (r.workload, r.pool) == (workload, pool)
            and r.started_s > since_s
            for r in self.requests[-200:]
        )

    def _ask(self, workload: str, number: int, in_surge: bool, seed: int) -> None:
        client, turn = self._stack.client(workload), 0
        mix = random.Random(seed * 1000 + number)
        while not self._stopped.is_set():
            if in_surge and not self._surging.wait(0.2):
                continue
            turn += 1
            stream = one(client, workload, f"{self._run}-{number}-{turn}", mix.choice(TOKENS))
            self.requests.append(as_request(stream, time.time() - time.monotonic()))
            pause_s = 0 if in_surge else PAUSE_S
            time.sleep(pause_s if stream.outcome == "whole" else REFUSED_S)


def as_request(stream: Stream, epoch_s: float) -> Request:
    """`epoch_s`: of the moment at which the monotonic clock began."""
    twice = repeated(stream.text)
    if stream.tokens > stream.most_tokens:
        twice = f"{stream.tokens} pieces of text, of {stream.most_tokens} tokens at most"
    return Request(
        request_id=stream.request_id,
        workload=stream.workload,
        pool=stream.pool,
        outcome=stream.outcome,
        started_s=stream.started_s + epoch_s,
        ended_s=stream.ended_s + epoch_s,
        connects=stream.connects,
        twice=twice,
        detail="" if stream.outcome == "whole" else stream.detail[:300],
    )


def repeated(text: str) -> str:
    """The first stretch that occurs again; empty: none does. Blanks and rules may."""
    seen: dict[str, int] = {}
    for at in range(len(text) - TWICE + 1):
        stretch = text[at : at + TWICE]
        if len(set(stretch)) >= DISTINCT and seen.setdefault(stretch, at) + TWICE <= at:
            return stretch
    return ""
