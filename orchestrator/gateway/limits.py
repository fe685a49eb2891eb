"""Requests and tokens a minute, of a caller and of its workload: what is over them is refused.

A request is counted when it comes, with the most tokens that it may take. What it did not take is
given back when it ends, whatever its end; what it took beyond that is counted then.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.config.spec import Limits
from orchestrator.gateway.call import Call
from orchestrator.gateway.caller import Caller
from orchestrator.gateway.errors import ApiError, unavailable
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.windows import WINDOW_S, Windows

GUESSED_TOKENS = 512
"""Reserved for a choice whose length the client leaves to the engine."""
GENERATING = frozenset({"chat", "completions", "responses", "messages"})
"""Endpoints whose answers are generated, token by token."""

Header = tuple[bytes, bytes]


@dataclass(slots=True)
class Subject:
    """Whose requests are counted together."""

    name: str
    whose: str
    """In messages."""
    requests: int | None
    """A minute; None for any number, like `tokens`."""
    tokens: int | None


@dataclass(slots=True)
class Reservation:
    subjects: list[Subject]
    second: int
    tokens: int
    most_tokens: int | None


class Limiter:
    def __init__(self, folder: Path) -> None:
        """`folder` is shared by all gateways of the node."""
        self._folder = folder

    def __enter__(self) -> Self:
        """Raises OSError."""
        self._windows = Windows(self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._windows.close()

    @contextmanager
    def admitted(self, call: Call) -> Iterator[None]:
        """A request within the limits, settled at its end. Raises ApiError 429, or 503 when nothing
        can be counted."""
        workload = call.rules.catalogue.workloads[call.caller.workload]
        subjects = subjects_of(call.caller, workload.limits)
        if not subjects:
            yield
            return
        most = most_tokens(subjects)
        tokens = 0 if most is None else tokens_to_reserve(call.request, most)
        now_s = time.monotonic()
        try:
            reservation = self.reserve(subjects, tokens, now_s)
            call.limit_headers = self.verdict(reservation, now_s)
        except OSError:
            raise unavailable("limits_unavailable", "Requests cannot be counted now.") from None
        try:
            yield
        finally:
            used = call.used
            used_tokens = used.prompt_tokens + used.completion_tokens
            self.settle(reservation, used_tokens, time.monotonic())

    def reserve(self, subjects: list[Subject], tokens: int, now_s: float) -> Reservation:
        """Counts a request; `verdict` says whether it may go on. Raises ApiError 429 for one that
        never may, OSError."""
        most = most_tokens(subjects)
        if most is not None and tokens > most:
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"This request may take {tokens} tokens, and {most} are allowed in a whole minute. "
                "Ask for fewer.",
                "tokens",
            )
        reserved = Reservation([], int(now_s), tokens, most)
        try:
            for subject in subjects:
                self._windows.add(subject.name, reserved.second, 1, tokens)
                reserved.subjects.append(subject)
        except OSError:
            self._take_back(reserved)
            raise
        return reserved

    def verdict(self, reserved: Reservation, now_s: float) -> list[Header]:
        """The headers of an answer. Raises ApiError 429 and OSError, and then nothing is
        counted."""
        totals, over = [], []
        try:
            for subject in reserved.subjects:
                totals.append((subject, *self._windows.total(subject.name, reserved.second)))
        except OSError:
            self._take_back(reserved)
            raise
        for subject, requests, tokens in totals:
            if subject.requests is not None and requests > subject.requests:
                over.append((subject, "requests", subject.requests))
            if subject.tokens is not None and tokens > subject.tokens:
                over.append((subject, "tokens", subject.tokens))
        if not over:
            return headers(totals, WINDOW_S + 1)
        self._take_back(reserved)
        wait_s = max(
            self._wait_s(subject.name, kind, limit, reserved.tokens, now_s)
            for subject, kind, limit in over
        )
        subject, kind, limit = over[0]
        raise ApiError(
            429,
            "rate_limit_exceeded",
            f"{subject.whose} limit of {limit} {kind} a minute is reached; ask in {wait_s} s.",
            kind,
            headers={"retry-after": str(wait_s)},
        )

    def _take_back(self, reserved: Reservation) -> None:
        for subject in reserved.subjects:
            with suppress(OSError):
                self._windows.add(subject.name, reserved.second, -1, -reserved.tokens)

    def settle(self, reserved: Reservation, used_tokens: int, now_s: float) -> None:
        """With what the request used in all its attempts."""
        most = reserved.most_tokens
        if most is None:
            return
        # More than a whole minute's is not worse: either way nothing more is let through.
        beyond = min(used_tokens, most) - reserved.tokens
        second = reserved.second if beyond < 0 else int(now_s)
        for subject in reserved.subjects if beyond else ():
            with suppress(OSError):
                self._windows.add(subject.name, second, 0, beyond)

    def headers(self, caller: Caller, workload: Limits) -> list[Header]:
        """Of an answer to something that does not count."""
        subjects, now_s = subjects_of(caller, workload), time.monotonic()
        totals, newest = [], 0
        with suppress(OSError):
            for subject in subjects:
                counted = self._windows.by_second(subject.name, int(now_s))
                newest = max([newest, *(second for second, _, _ in counted)])
                requests, tokens = (sum(count[n] for count in counted) for n in (1, 2))
                totals.append((subject, requests, tokens))
        return headers(totals, _free_in_s(newest, now_s))

    def _wait_s(self, subject: str, kind: str, limit: int, tokens: int, now_s: float) -> int:
        """Until a request of so many tokens is within the limit, when nothing else comes."""
        counts = [
            (second, requests if kind == "requests" else used)
            for second, requests, used in self._windows.by_second(subject, int(now_s))
        ]
        over = sum(count for _, count in counts) + (1 if kind == "requests" else tokens) - limit
        for second, count in counts:
            over -= count
            if over <= 0:
                return _free_in_s(second, now_s)
        return 1


def _free_in_s(second: int, now_s: float) -> int:
    """Until what was counted at this second counts no more."""
    return max(1, math.ceil(second + WINDOW_S + 1 - now_s))


def subjects_of(caller: Caller, workload: Limits) -> list[Subject]:
    """Empty for a caller without limits."""
    found = []
    for name, whose, limits in (
        (f"caller-{caller.id}", "Your", caller.limits),
        (f"workload-{caller.workload}", "The workload's", workload),
    ):
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        if requests is not None or tokens is not None:
            found.append(Subject(name, whose, requests, tokens))
    return found


def most_tokens(subjects: list[Subject]) -> int | None:
    """That a single request may take; None for any number."""
    return min([s.tokens for s in subjects if s.tokens is not None], default=None)


def tokens_to_reserve(request: InferenceRequest, most: int) -> int:
    """The most that the request may take, as far as it says so: a guess alone never makes it too
    large."""
    asked = request.asked
    prompt = request.estimated_prompt_tokens
    if asked.max_tokens or request.dialect.name not in GENERATING:
        return prompt + asked.max_tokens * asked.choices
    return max(prompt, min(prompt + GUESSED_TOKENS * asked.choices, most))


def headers(totals: list[tuple[Subject, int, int]], reset_s: int) -> list[Header]:
    """OpenAI's `x-ratelimit-*`, of the tighter limit of each kind. `totals`: requests and tokens of
    each subject. `reset_s`: until all of them are forgotten."""
    found: list[Header] = []
    requests = [(s.requests - used, s.requests) for s, used, _ in totals if s.requests is not None]
    if requests:
        found += _told(b"requests", *min(requests), reset_s)
    tokens = [(s.tokens - used, s.tokens) for s, _, used in totals if s.tokens is not None]
    if tokens:
        found += _told(b"tokens", *min(tokens), reset_s)
    return found


def _told(kind: bytes, remaining: int, limit: int, reset_s: int) -> tuple[Header, ...]:
    return (
        (b"x-ratelimit-limit-" + kind, b"%d" % limit),
        (b"x-ratelimit-remaining-" + kind, b"%d" % max(0, remaining)),
        (b"x-ratelimit-reset-" + kind, b"0s" if remaining == limit else duration(reset_s)),
    )


def duration(seconds: int) -> bytes:
    """As OpenAI writes it: `6m0s`."""
    minutes, rest = divmod(seconds, 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
