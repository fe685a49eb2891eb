"""Limits over gateways that interleave at every step: none is overrun, none blocks for longer than
it must."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.limits import Limiter, Reservation, Subject
from orchestrator.gateway.windows import WINDOW_S

KEY = Subject("key", "Your", 4, 100)
WORKLOAD = Subject("workload", "The workload's", 6, 130)
SUBJECTS = {"key": [KEY], "both": [KEY, WORKLOAD], "workload": [WORKLOAD]}
REPLICAS = range(3)


@dataclass(eq=False)
class Request:
    replica: int
    life: int
    """Of the replica: it is another one after a crash."""
    reserved: Reservation
    at_s: float
    used: int | None = None


@dataclass
class Count:
    subject: str
    second: int
    requests: int
    tokens: int


class Replicas(RuleBasedStateMachine):
    undecided = Bundle("undecided")
    admitted = Bundle("admitted")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._limiters = [Limiter(Path(self._folder.name)).__enter__() for _ in REPLICAS]
        self._lives = [0 for _ in REPLICAS]
        self._now_s = 5000.0
        self._open = 0
        self._counts: list[Count] = []
        self._let_through: list[Request] = []

    def teardown(self) -> None:
        for limiter in self._limiters:
            limiter.__exit__(None, None, None)
        self._folder.cleanup()

    def _alive(self, request: Request) -> bool:
        return self._lives[request.replica] == request.life

    def _counted(self, subject: Subject, second: int) -> tuple[int, int]:
        counts = [
            c for c in self._counts if c.subject == subject.name and c.second >= second - WINDOW_S
        ]
        return sum(c.requests for c in counts), sum(c.tokens for c in counts)

    @rule(
        target=undecided,
        replica=st.sampled_from(REPLICAS),
        whose=st.sampled_from(sorted(SUBJECTS)),
        tokens=st.integers(0, 100),
    )
    def reserve(self, replica: int, whose: str, tokens: int) -> Request:
        reserved = self._limiters[replica].reserve(SUBJECTS[whose], tokens, self._now_s)
        self._counts += [Count(s.name, reserved.second, 1, tokens) for s in reserved.subjects]
        self._open += 1
        return Request(replica, self._lives[replica], reserved, self._now_s)

    @rule(target=admitted, request=consumes(undecided))
    def decide(self, request: Request) -> Request:
        self._open -= 1
        if not self._alive(request):
            return request
        reserved = request.reserved
        fits = all(
            requests <= (s.requests or 0) and tokens <= (s.tokens or 0)
            for s in reserved.subjects
            for requests, tokens in [self._counted(s, reserved.second)]
        )
        try:
            self._limiters[request.replica].verdict(reserved, self._now_s)
        except ApiError as refused:
            assert not fits
            self._change(reserved, -1, -reserved.tokens)
            self._check_wait(reserved, int(refused.headers["retry-after"]))
            request.used = 0
        else:
            assert fits
            self._let_through.append(request)
        return request

    def _change(self, reserved: Reservation, requests: int, tokens: int) -> None:
        for subject in reserved.subjects:
            self._counts.append(Count(subject.name, reserved.second, requests, tokens))

    def _check_wait(self, reserved: Reservation, wait_s: int) -> None:
        """After it the same request is let through, when nothing else comes."""
        assert 1 <= wait_s <= WINDOW_S + 1
        for subject in reserved.subjects:
            requests, tokens = self._counted(subject, int(self._now_s + wait_s))
            assert requests + 1 <= (subject.requests or 0)
            assert tokens + reserved.tokens <= (subject.tokens or 0)

    @rule(request=admitted, used=st.integers(0, 150))
    def settle(self, request: Request, used: int) -> None:
        if not self._alive(request) or request.used is not None:
            return
        request.used = used
        self._limiters[request.replica].settle(request.reserved, used, self._now_s)
        beyond = min(used, request.reserved.most_tokens or 0) - request.reserved.tokens
        second = request.reserved.second if beyond < 0 else int(self._now_s)
        for subject in request.reserved.subjects:
            self._counts.append(Count(subject.name, second, 0, beyond))

    @precondition(lambda self: not self._open)
    @rule(seconds=st.floats(0.1, 90))
    def wait(self, seconds: float) -> None:
        self._now_s += seconds

    @rule(replica=st.sampled_from(REPLICAS))
    def crash(self, replica: int) -> None:
        self._limiters[replica].__exit__(None, None, None)
        self._limiters[replica] = Limiter(Path(self._folder.name)).__enter__()
        self._lives[replica] += 1

    @invariant()
    def every_replica_counts_the_same_and_right(self) -> None:
        second = int(self._now_s)
        for subject in (KEY, WORKLOAD):
            right = self._counted(subject, second)
            assert min(right) >= 0
            for limiter in self._limiters:
                assert limiter._windows.total(subject.name, second) == right

    @invariant()
    def no_minute_has_more_requests_than_the_limit(self) -> None:
        for subject in (KEY, WORKLOAD):
            times = sorted(r.at_s for r in self._let_through if subject in r.reserved.subjects)
            for first in times:
                inside = [t for t in times if first <= t < first + WINDOW_S]
                assert len(inside) <= (subject.requests or 0)

    @invariant()
    def no_minute_has_more_tokens_than_the_limit(self) -> None:
        """Of requests that used no more than they reserved."""
        for subject in (KEY, WORKLOAD):
            used = [
                (r.at_s, r.reserved.tokens if r.used is None else min(r.used, r.reserved.tokens))
                for r in self._let_through
                if subject in r.reserved.subjects
            ]
            for first, _ in used:
                inside = [n for at, n in used if first <= at < first + WINDOW_S]
                assert sum(inside) <= (subject.tokens or 0)


Replicas.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestReplicas = Replicas.TestCase
