"""One request: decide, send, pass on. A stream is committed at its first token.

Before the first token an attempt that fails is made elsewhere, under a grant of its own. After it
the stream goes on to its end or ends with a typed error event; text is never repeated.
"""

import time
from contextlib import suppress

import orjson

from orchestrator.config.spec import Timeouts
from orchestrator.gateway import sse
from orchestrator.gateway.accounting import Accounting
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.placement import Placement
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import OUT_OF_TIME, denial, engine_message, interruption
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import Response, UpstreamFailed, Upstreams

CLIENT_MISTAKES = frozenset({400, 413, 422})
"""Upstream answers that say something of the request itself: the client gets them."""
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
        self._upstreams = upstreams
        self._sensitivity = sensitivity
        self._placement = Placement(exchange, sensitivity, records, telemetry)
        self._accounting = Accounting(records, telemetry)

    async def run(self, call: Call) -> None:
        """Answers the call. Raises ApiError while nothing has been sent yet, ClientGone when a
        whole answer is not read in time."""
        self._placement.remember(call)
        failed: dict[str, str] = {}
        for number in range(1, self._exchange.catalogue.configuration.policy.max_attempts + 1):
            if failed and self._left_s(call) <= 0:
                break
            decision = await self._placement.decided(call, number, failed, self._left_s(call))
            if decision.grant is None:
                raise denial(decision, bool(failed))
            said = call.request.dialect.answer()
            attempt = Attempt(decision.grant, number, time.monotonic(), said)
            try:
                await self._attempt(call, attempt)
            except UpstreamFailed as failure:
                failed[attempt.endpoint] = f"failed this request: {failure.reason}"
                self._failed(attempt, failure.reason)
            else:
                return
        raise unavailable("upstream_failed", "No replica answered. Try again shortly.")

    async def _attempt(self, call: Call, attempt: Attempt) -> None:
        call.endpoint = attempt.endpoint
        self._accounting.opened(call, attempt)
        upstream_id = (
            call.request_id if attempt.number == 1 else f"{call.request_id}-{attempt.number}"
        )
        # Without a stream the engine says nothing before it has everything.
        timeout_s = self._left_s(call)
        if call.request.stream:
            timeout_s = min(timeout_s, self._timeouts.first_token_s)
        served_name = attempt.grant.candidate.variant.served_name
        body = call.request.sent_to(served_name, attempt.is_vllm)
        try:
            async with self._upstreams.send(
                attempt.grant, call.request.path, body, upstream_id, timeout_s
            ) as response:
                if response.status != 200:
                    await self._refused(call, attempt, response)
                elif call.request.stream:
                    await self._stream(call, attempt, response)
                else:
                    await self._whole(call, attempt, response)
        finally:
            # Also of an answer that broke off: its client has the part that was sent.
            with suppress(ApiError):
                self._keep_answer(call, attempt)
            self._accounting.closed(call, attempt)

    @property
    def _timeouts(self) -> Timeouts:
        return self._exchange.catalogue.configuration.gateway.timeouts

    def _left_s(self, call: Call) -> float:
        """Of the time that the whole answer may take."""
        return call.started_s + self._timeouts.total_s - time.monotonic()

    def _failed(self, attempt: Attempt, reason: str) -> None:
        attempt.outcome = reason
        if reason != OUT_OF_TIME:
            self._accounting.failed(attempt, reason)
            self._placement.failed(attempt, reason)

    async def _refused(self, call: Call, attempt: Attempt, response: Response) -> None:
        body = await response.body(min(self._timeouts.between_tokens_s, self._left_s(call)))
        attempt.outcome = f"status_{response.status}"
        if response.status not in CLIENT_MISTAKES:
            raise UpstreamFailed(f"status_{response.status}")
        raise ApiError(response.status, "invalid_request", engine_message(body))

    async def _whole(self, call: Call, attempt: Attempt, response: Response) -> None:
        body = await response.body(self._left_s(call))
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamFailed("malformed") from None
        if not isinstance(answer, dict):
            raise UpstreamFailed("malformed")
        attempt.usage = call.request.dialect.usage(answer)
        if call.answer_is_kept:
            attempt.said.take(answer)
            self._keep_answer(call, attempt)
        attempt.outcome = "complete"
        self._answers(call, attempt)
        await self._start(call, attempt, b"application/json", len(body))
        for start in range(0, len(body), PIECE_BYTES):
            if self._left_s(call) <= 0:
                raise ClientGone
            piece = body[start : start + PIECE_BYTES]
            more = start + PIECE_BYTES < len(body)
            await call.send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _chunk(self, call: Call, attempt: Attempt, response: Response) -> bytes:
        """The next bytes of a stream. Raises UpstreamFailed when they do not come in time."""
        wait_s, left_s = self._timeouts.between_tokens_s, self._left_s(call)
        if attempt.first_token_s is None:
            wait_s = attempt.started_s + self._timeouts.first_token_s - time.monotonic()
        try:
            chunk = await response.chunk(min(wait_s, left_s))
        except UpstreamFailed as failure:
            if failure.reason == "stalled" and left_s < wait_s:
                raise UpstreamFailed(OUT_OF_TIME) from None
            raise
        if not chunk:
            raise UpstreamFailed("cut")
        return chunk

    async def _stream(self, call: Call, attempt: Attempt, response: Response) -> None:
        splitter = sse.EventSplitter()
        reader = call.request.dialect.reader(call.request.asked, attempt.is_vllm)
        held: list[bytes] = []
        committed = done = False
        try:
            while not done:
                for received in splitter.feed(await self._chunk(call, attempt, response)):
                    kind, event = reader.read(received)
                    if kind is sse.Kind.ERROR:
                        raise UpstreamFailed("engine_error")
                    done = kind is sse.Kind.DONE
                    # The end of a whole answer counts, even of one that says nothing.
                    if kind is sse.Kind.CONTENT or (done and reader.finished):
                        if not committed:
                            committed = True
                            self._answers(call, attempt)
                            await self._start(call, attempt, b"text/event-stream", None)
                        if call.answer_is_kept:
                            attempt.said.take_event(event)
                    if event:
                        held.append(event)
                    if done:
                        break
                if done and call.answer_is_kept:
                    self._keep_answer(call, attempt)
                if committed and held:
                    await call.send(
                        {
                            "type": "http.response.body",
                            "body": b"".join(held),
                            "more_body": not done,
                        }
                    )
                    held.clear()
        except UpstreamFailed as failure:
            if not committed:
                raise
            self._failed(attempt, failure.reason)
            last = b"".join(held) + reader.interruption(interruption(failure.reason))
            await call.send({"type": "http.response.body", "body": last, "more_body": False})
            return
        finally:
            attempt.usage, attempt.chunks = reader.usage, reader.content_events
        if not committed:
            raise UpstreamFailed("empty")
        attempt.outcome = "complete"

    def _keep_answer(self, call: Call, attempt: Attempt) -> None:
        """Raises ApiError 503 when a raised conversation could not be known again."""
        said, attempt.said = attempt.said, call.request.dialect.answer()
        for turn in said.turns():
            self._sensitivity.remember_answer(call.labels, turn)

    def _answers(self, call: Call, attempt: Attempt) -> None:
        """The first token is there."""
        self._accounting.first_token(call, attempt)
        self._placement.succeeded(call, attempt)

    async def _start(
        self, call: Call, attempt: Attempt, content_type: bytes, length: int | None
    ) -> None:
        candidate = attempt.grant.candidate
        call.status, call.zone, call.pool = 200, candidate.zone.name, candidate.pool.name
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", call.request_id.encode()),
            (b"x-orchestrator-pool", candidate.pool.name.encode()),
            (b"x-orchestrator-zone", candidate.zone.name.encode()),
            (b"x-orchestrator-variant", candidate.variant.name.encode()),
            (b"x-orchestrator-policy-version", attempt.grant.policy_version.encode()),
        ]
        if length is None:
            headers.append((b"cache-control", b"no-cache"))
        else:
            headers.append((b"content-length", str(length).encode()))
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
