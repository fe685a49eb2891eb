"""One request: decide, send, pass on. A stream is committed at its first token.

Before the first token an attempt that fails is made elsewhere, under a grant of its own. After it
the same variant goes on elsewhere from where the stream broke off, or the stream ends with a typed
error event; text is never repeated.
"""

import asyncio
import time
from collections.abc import Mapping
from functools import partial

from orchestrator.config.spec import Hedge
from orchestrator.gateway.accounting import Accounting
from orchestrator.gateway.attempts import Attempts, Begun
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.continuation import continuation
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.placement import Placement
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import OUT_OF_TIME, interruption
from orchestrator.gateway.retries import RetryBudget
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import UpstreamFailed, Upstreams
from orchestrator.policy.snapshot import Hold

PIECE_BYTES = 64 * 1024
"""Whole answers are sent in pieces of this size, so that a slow client is told from a stuck one."""


class Relay:
    def __init__(
        self,
        exchange: Exchange,
        upstreams: Upstreams,
        sensitivity: Sensitivity,
        records: Records,
        telemetry: Telemetry,
    ) -> None:
        self._exchange = exchange
        self._placement = Placement(exchange, sensitivity, records, telemetry)
        self._attempts = Attempts(
            exchange, upstreams, sensitivity, self._placement, Accounting(records, telemetry)
        )
        self._retries = RetryBudget()
        self._passing: dict[Begun, Call] = {}
        """Streams on their way."""
        exchange.on_snapshot = self._leave_what_is_lost

    async def run(self, call: Call) -> None:
        """Answers the call. Raises ApiError while nothing has been sent yet, ClientGone when a
        whole answer is not read in time."""
        self._placement.remember(call)
        budget = self._exchange.catalogue.configuration.policy.retry_budget
        self._retries.request(budget, time.monotonic())
        begun = await self._begun(call)
        if begun.stream is None:
            await self._pass_body(call, begun)
        else:
            await self._pass_stream(call, begun)

    def ejected(self) -> Mapping[str, str]:
        """Endpoints that are left alone now, with the reason."""
        return self._placement.ejected()

    async def _begun(self, call: Call) -> Begun:
        """The first attempt that begins to answer. Raises ApiError."""
        failed: dict[str, str] = {}
        while not call.decisions or self._may_try_again(call):
            attempt = await self._granted(call, failed, "retry" if failed else "first")
            try:
                hedge = self._hedge(call)
                if hedge is None:
                    return await self._attempts.begin(call, attempt)
                return await self._first_to_begin(call, attempt, hedge, failed)
            except UpstreamFailed as failure:
                failed[attempt.endpoint] = f"failed this request: {failure.reason}"
        raise unavailable("upstream_failed", "No replica answered. Try again shortly.")

    async def _granted(self, call: Call, failed: dict[str, str], kind: str) -> Attempt:
        """Raises ApiError."""
        call.decisions += 1
        # Whoever reads an answer does not wait for a place of its rest.
        left_s = 0.0 if kind == "continuation" else self._attempts.left_s(call)
        asked_s = time.monotonic()
        grant = await self._placement.granted(
            call, call.decisions, failed, left_s, spare=kind == "hedge"
        )
        said = call.request.dialect.answer()
        return Attempt(grant, call.decisions, time.monotonic(), said, kind=kind, asked_s=asked_s)

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
        racing = {asyncio.create_task(self._attempts.begin(call, attempt))}
        try:
            await asyncio.wait(racing, timeout=hedge.after_s)
            other = None if next(iter(racing)).done() else await self._second(call, attempt, failed)
            if other is not None:
                racing.add(asyncio.create_task(self._attempts.begin(call, other)))
            while True:
                done, running = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled() and task.exception() is None:
                        racing.discard(task)
                        return task.result()
                if not running or any(isinstance(t.exception(), ApiError) for t in done):
                    racing -= done
                    raise next(t.exception() for t in done)  # type: ignore[misc]
                racing = running
        finally:
            # Without waiting: who is cancelled while it waits here would lose the one that won.
            for task in racing:
                task.cancel()
                task.add_done_callback(partial(self._too_late, call))

    def _too_late(self, call: Call, task: asyncio.Task[Begun]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._attempts.end(call, task.result())

    async def _second(self, call: Call, first: Attempt, failed: dict[str, str]) -> Attempt | None:
        """A grant of its own for another endpoint, where there is one and a budget for it."""
        if not self._retries.spend():
            return None
        keep_away = failed | {first.endpoint: "has this request already"}
        try:
            return await self._granted(call, keep_away, "hedge")
        except ApiError:
            return None

    async def _pass_body(self, call: Call, begun: Begun) -> None:
        try:
            await self._start(call, begun)
            body = begun.body
            for start in range(0, len(body), PIECE_BYTES):
                if self._attempts.left_s(call) <= 0:
                    raise ClientGone
                piece = body[start : start + PIECE_BYTES]
                more = start + PIECE_BYTES < len(body)
                await call.send({"type": "http.response.body", "body": piece, "more_body": more})
        finally:
            self._attempts.end(call, begun)

    async def _start(self, call: Call, begun: Begun) -> None:
        grant = begun.attempt.grant
        candidate = grant.candidate
        call.status, call.zone, call.pool = 200, candidate.zone.name, candidate.pool.name
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
                        begun = rest
                        self._passing[begun] = call
                        continue
                    piece = stream.reader.interruption(interruption(failure.reason))
                    done = True
                else:
                    if done:
                        begun.attempt.outcome = "complete"
                        self._attempts.keep_answer(call, begun.attempt)
                await call.send(
                    {"type": "http.response.body", "body": piece, "more_body": not done}
                )
        finally:
            del self._passing[begun]
            self._attempts.end(call, begun)

    def _leave_what_is_lost(self) -> None:
        """Breaks off streams on pools whose replicas will be lost, where they can go on."""
        holds = self._exchange.snapshot.holds
        if Hold.LEAVING not in holds.values():
            return
        for begun, call in self._passing.items():
            candidate = begun.attempt.grant.candidate
            if holds.get(candidate.pool.name) is not Hold.LEAVING or begun.stream is None:
                continue
            rest = continuation(call.request, begun.stream.reader)
            if rest is not None and self._placement.could_go_on(call, candidate):
                begun.response.interrupt("evicted")

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
        while self._may_try_again(call):
            try:
                attempt = await self._granted(call, failed, "continuation")
                attempt.said = broken.attempt.said
                return await self._attempts.begin(call, attempt, (request, reader))
            except UpstreamFailed as failure:
                failed[attempt.endpoint] = f"failed this request: {failure.reason}"
            except ApiError:
                return None
        return None

    def _may_try_again(self, call: Call) -> bool:
        most = self._exchange.catalogue.configuration.policy.max_attempts
        return call.decisions < most and self._attempts.left_s(call) > 0 and self._retries.spend()
