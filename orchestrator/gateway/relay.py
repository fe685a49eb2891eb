"""One request: decide, send, pass on. A stream is committed at its first token.

Before the first token an attempt that fails is made elsewhere, under a grant of its own. After it
the same variant goes on elsewhere from where the stream broke off, or the stream ends with a typed
error event; text is never repeated.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from functools import partial

from orchestrator.config.spec import Hedge
from orchestrator.gateway.accounting import Accounting
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.attempts import Attempts, Begun
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.continuation import continuation
from orchestrator.gateway.decisions import Decisions
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.placement import Placement
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import OUT_OF_TIME, interruption, too_late
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import UpstreamFailed, Upstreams
from orchestrator.policy.grant import Grant
from orchestrator.policy.retries import RetryBudget
from orchestrator.policy.snapshot import Hold

EVICTED = "evicted"
"""How an attempt ends that goes on elsewhere before its replica is lost."""
PIECE_BYTES = 64 * 1024
"""Whole answers are sent in pieces of this size, so that a slow client is told from a stuck one."""


class Relay:
    def __init__(
        self,
        exchange: Exchange,
        admission: Admission[Grant],
        upstreams: Upstreams,
        sensitivity: Sensitivity,
        records: Records,
        telemetry: Telemetry,
    ) -> None:
        self._exchange = exchange
        self._decisions = Decisions(exchange, telemetry)
        self._placement = Placement(
            exchange, admission, self._decisions, sensitivity, records, telemetry
        )
        accounting = Accounting(records, telemetry)
        self._attempts = Attempts(
            exchange, upstreams, sensitivity, self._decisions, self._placement, accounting
        )
        self._retries = RetryBudget()
        self._passing: dict[Begun, Call] = {}
        """Streams on their way."""

    async def follow(self) -> None:
        """Acts on what the controller says, after each exchange with it, until cancelled."""
        while True:
            before = self._exchange.snapshot
            await self._exchange.tick()
            self._placement.follow()
            if self._exchange.snapshot is not before:
                self._leave_what_is_lost()

    async def run(self, call: Call) -> None:
        """Answers the call. Raises ApiError while nothing has been sent yet, ClientGone when a
        whole answer is not read in time."""
        if self._placement.read(call):
            await self._placement.remember(call)
        budget = self._exchange.catalogue.configuration.policy.retry_budget
        self._retries.request(budget, time.monotonic())
        begun = await self._begun(call)
        if begun.stream is None:
            await self._pass_body(call, begun)
        else:
            await self._pass_stream(call, begun)

    def ejected(self) -> Mapping[str, str]:
        """Endpoints that are left alone now, with the reason."""
        return self._decisions.ejected()

    async def _begun(self, call: Call) -> Begun:
        """The first attempt that begins to answer. Raises ApiError."""
        failed: dict[str, str] = {}
        while not call.decisions or self._may_try_again(call):
            attempt = await self._granted(call, failed, "retry" if failed else "first")
            try:
                hedge = self._hedge(call)
                if hedge is None:
                    return await self._begin(call, attempt, failed)
                return await self._first_to_begin(call, attempt, hedge, failed)
            except UpstreamFailed as failure:
                if failure.reason == OUT_OF_TIME:
                    raise too_late() from None
        raise unavailable("upstream_failed", "No replica answered. Try again shortly.")

    async def _begin(
        self,
        call: Call,
        attempt: Attempt,
        failed: dict[str, str],
        rest: tuple[InferenceRequest, ChoicesReader] | None = None,
    ) -> Begun:
        """As `Attempts.begin`; why it fails is in `failed` then."""
        try:
            return await self._attempts.begin(call, attempt, rest)
        except UpstreamFailed as failure:
            failed[attempt.endpoint] = f"failed this request: {failure.reason}"
            raise

    async def _granted(self, call: Call, failed: dict[str, str], kind: str) -> Attempt:
        """Raises ApiError."""
        number = call.decisions + 1
        # Whoever reads an answer does not wait for a place of its rest.
        left_s = 0.0 if kind == "continuation" else self._attempts.left_s(call)
        asked_s = time.monotonic()
        grant = await self._placement.granted(call, number, failed, left_s, spare=kind == "hedge")
        call.decisions = number
        said = call.request.dialect.answer()
        return Attempt(grant, number, time.monotonic(), said, kind=kind, asked_s=asked_s)

    def _hedge(self, call: Call) -> Hedge | None:
        """For short requests alone: a long one twice would cost more than it gains."""
        hedge = call.rules.catalogue.workloads[call.caller.workload].hedge
        if hedge is None or not 0 < call.request.max_tokens <= hedge.max_tokens:
            return None
        return hedge

    async def _first_to_begin(
        self, call: Call, attempt: Attempt, hedge: Hedge, failed: dict[str, str]
    ) -> Begun:
        """Of two attempts, where the first one takes its time; the other is cancelled. Raises
        UpstreamFailed when both fail."""
        first = asyncio.create_task(self._begin(call, attempt, failed))
        racing = {first}
        try:
            await asyncio.wait(racing, timeout=hedge.after_s)
            if not first.done() and (other := await self._second(call, attempt, failed)):
                racing.add(asyncio.create_task(self._begin(call, other, failed)))
            while True:
                done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None:
                        racing.discard(task)
                        return task.result()
                for task in done:
                    racing.discard(task)
                    error = task.exception()
                    assert error is not None, "those without have won"
                    # What the client must change is told at once, whoever says it.
                    if isinstance(error, ApiError) or not racing:
                        raise error
        finally:
            # Without waiting: who is cancelled while it waits here would lose the one that won. All
            # have begun by now, and give back their places: a task runs before its maker is woken.
            for task in racing:
                task.cancel()
                task.add_done_callback(partial(self._too_late, call))

    def _too_late(self, call: Call, task: asyncio.Task[Begun]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._attempts.end(call, task.result())

    async def _second(self, call: Call, first: Attempt, failed: dict[str, str]) -> Attempt | None:
        """A grant of its own for another endpoint, where there is one and a budget for it."""
        if call.decisions >= self._most_attempts or not self._retries.spend():
            return None
        keep_away = failed | {first.endpoint: "has this request already"}
        try:
            return await self._granted(call, keep_away, "hedge")
        except ApiError:
            self._retries.give_back()
            return None

    async def _pass_body(self, call: Call, begun: Begun) -> None:
        # The engine is done, however slowly the client reads.
        self._attempts.end(call, begun)
        await self._start(call, begun)
        body = begun.body
        for start in range(0, len(body), PIECE_BYTES):
            if self._attempts.left_s(call) <= 0:
                raise ClientGone
            piece = body[start : start + PIECE_BYTES]
            more = start + PIECE_BYTES < len(body)
            await call.send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _start(self, call: Call, begun: Begun) -> None:
        grant = begun.attempt.grant
        candidate = grant.candidate
        call.status, call.zone, call.pool = 200, candidate.zone.name, candidate.pool.name
        call.answered_by = begun.attempt
        headers = [
            (b"content-type", b"text/event-stream" if begun.stream else b"application/json"),
            (b"x-request-id", call.request_id.encode()),
            (b"x-orchestrator-pool", candidate.pool.name.encode()),
            (b"x-orchestrator-zone", candidate.zone.name.encode()),
            (b"x-orchestrator-variant", candidate.variant.name.encode()),
            (b"x-orchestrator-policy-version", grant.policy_version.encode()),
            *call.limit_headers,
        ]
        if begun.stream:
            headers.append((b"cache-control", b"no-cache"))
        else:
            headers.append((b"content-length", str(len(begun.body)).encode()))
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _pass_stream(self, call: Call, begun: Begun) -> None:
        """To its end, by whoever goes on with it."""
        self._passing[begun] = call
        try:
            await self._start(call, begun)
            done = False
            while not done:
                stream = begun.stream
                assert stream is not None, "an answer goes on as it began"
                try:
                    piece = await stream.more()
                    done = stream.done
                except UpstreamFailed as failure:
                    self._attempts.failed(begun.attempt, failure.reason)
                    rest = await self._rest(call, begun, failure.reason)
                    if rest is not None:
                        del self._passing[begun]
                        self._attempts.end(call, begun)
                        begun, call.answered_by = rest, rest.attempt
                        self._passing[begun] = call
                        continue
                    piece = stream.reader.interruption(interruption(failure.reason))
                    done = True
                else:
                    if done:
                        begun.attempt.outcome = "complete"
                if done and call.answer_is_kept:
                    piece = await self._kept_end(call, begun, piece)
                await call.send(
                    {"type": "http.response.body", "body": piece, "more_body": not done}
                )
        finally:
            del self._passing[begun]
            self._attempts.end(call, begun)

    async def _kept_end(self, call: Call, begun: Begun, end: bytes) -> bytes:
        """The end of an answer, which is sent when its conversation can be known again."""
        assert begun.stream is not None, "only streams have an end of their own"
        try:
            await self._attempts.keep_answer(call, begun.attempt)
        except ApiError as error:
            return begun.stream.reader.interruption(error)
        return end

    def _leave_what_is_lost(self) -> None:
        """Breaks off streams on pools whose replicas will be lost: those that can go on elsewhere,
        and no more at a time than there is room for."""
        holds = self._exchange.snapshot.holds
        if Hold.LEAVING not in holds.values():
            return
        moving: Counter[str] = Counter()
        for begun, call in self._passing.items():
            candidate = begun.attempt.grant.candidate
            if holds.get(candidate.pool.name) is not Hold.LEAVING or begun.stream is None:
                continue
            if continuation(call.request, begun.stream.reader) is None:
                continue
            place = self._decisions.place_elsewhere(call, candidate, moving)
            if place is not None:
                moving[place] += 1
                begun.response.interrupt(EVICTED)

    async def _rest(self, call: Call, broken: Begun, reason: str) -> Begun | None:
        """Of an answer that broke off, by the same variant. None where it cannot go on."""
        assert broken.stream is not None, "only streams go on"
        reader = broken.stream.reader
        request = None if reason == OUT_OF_TIME else continuation(call.request, reader)
        if request is None:
            return None
        assert isinstance(reader, ChoicesReader), "no other answer goes on"
        call.variant = broken.attempt.grant.candidate.variant.name
        failed = {broken.attempt.endpoint: f"failed this request: {reason}"}
        # A move that we made ourselves is no retry.
        may_go_on = reason == EVICTED or self._may_try_again(call)
        while may_go_on:
            try:
                attempt = await self._granted(call, failed, "continuation")
                # Of its own: what one that fails has read is no part of the answer.
                attempt.said = deepcopy(broken.attempt.said)
                return await self._begin(call, attempt, failed, (request, reader))
            except UpstreamFailed:
                may_go_on = self._may_try_again(call)
            except ApiError:
                return None
        return None

    @property
    def _most_attempts(self) -> int:
        return self._exchange.catalogue.configuration.policy.max_attempts

    def _may_try_again(self, call: Call) -> bool:
        return (
            call.decisions < self._most_attempts
            and self._attempts.left_s(call) > 0
            and self._retries.spend()
        )
