"""One attempt at an answer: sent, begun, ended, and put to the account of whom it was for.

It has begun with its first token, or with a whole body. Until then it may fail unseen.
"""

import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from orchestrator.config.spec import Timeouts
from orchestrator.gateway.accounting import Accounting
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.decisions import Decisions
from orchestrator.gateway.dialects.choices_reader import ChoicesReader
from orchestrator.gateway.dialects.continued_reader import ContinuedReader
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.placement import Placement
from orchestrator.gateway.refusals import OUT_OF_TIME, engine_message, not_offered
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.sensitivity import Sensitivity, written
from orchestrator.gateway.stream import Stream
from orchestrator.gateway.upstream import UpstreamFailed, UpstreamResponse, Upstreams

CLIENT_MISTAKES = frozenset({400, 413, 422})
"""Upstream answers that say something of the request itself: the client gets them."""


@dataclass(slots=True, eq=False)
class Begun:
    """An attempt whose answer is there, or comes."""

    attempt: Attempt
    response: UpstreamResponse
    stream: Stream | None = None
    body: bytes = b""
    """Of an answer that is no stream."""


class Attempts:
    def __init__(
        self,
        exchange: Exchange,
        upstreams: Upstreams,
        sensitivity: Sensitivity,
        decisions: Decisions,
        placement: Placement,
        accounting: Accounting,
    ) -> None:
        self._exchange = exchange
        self._upstreams = upstreams
        self._sensitivity = sensitivity
        self._decisions = decisions
        self._placement = placement
        self._accounting = accounting

    @property
    def _timeouts(self) -> Timeouts:
        return self._exchange.catalogue.configuration.gateway.timeouts

    def left_s(self, call: Call) -> float:
        """Of the time that the whole answer may take."""
        return call.started_s + self._timeouts.total_s - time.monotonic()

    async def begin(
        self,
        call: Call,
        attempt: Attempt,
        rest: tuple[InferenceRequest, ChoicesReader] | None = None,
    ) -> Begun:
        """Sends it and waits for its first token, or for all of its body. `rest`: what makes an
        answer go on that broke off, and who has read it so far. Raises UpstreamFailed, and
        ApiError for what the client must change; then it is ended already."""
        self._accounting.opened(call, attempt)
        self._decisions.opened(attempt)
        begun: Begun | None = None
        try:
            request = rest[0] if rest else call.request
            begun = Begun(attempt, await self._sent(call, attempt, request))
            if begun.response.status != 200:
                await self._refused(call, begun)
            elif call.request.stream:
                vllm = attempt.grant.candidate.speaks_vllm
                reader = (
                    ContinuedReader(rest[1], vllm)
                    if rest
                    else request.dialect.reader(request.asked, vllm)
                )
                begun.stream = Stream(call, attempt, begun.response, reader, self._timeouts)
                await begun.stream.first_token()
            else:
                begun.body = await begun.response.body(self.left_s(call))
                answer = self._read(call, attempt, begun.body)
                if call.answer_is_kept:
                    attempt.said.take(answer)
                    await self.keep_answer(call, attempt)
            self._accounting.first_token(call, attempt)
            self._decisions.succeeded(call, attempt)
            return begun
        except UpstreamFailed as failure:
            if failure.reason in ("timeout", "stalled") and self.left_s(call) <= 0:
                failure = UpstreamFailed(OUT_OF_TIME)
            try:
                self.failed(attempt, failure.reason)
            finally:
                self._close(call, attempt, begun)
            raise failure from None
        except BaseException:
            self._close(call, attempt, begun)
            raise

    def failed(self, attempt: Attempt, reason: str) -> None:
        attempt.outcome = reason
        if reason != OUT_OF_TIME:
            self._accounting.failed(attempt, reason)
            self._decisions.failed(attempt, reason)

    async def keep_answer(self, call: Call, attempt: Attempt) -> None:
        """What was said in a raised conversation, for it to be known by. Raises ApiError 503 when
        it could not be known again."""
        try:
            await written(self._remember(call, attempt))
        except ApiError as error:
            attempt.outcome = error.code
            raise

    def _remember(self, call: Call, attempt: Attempt) -> Future[None]:
        """Raises ApiError 503."""
        said, attempt.said = attempt.said, call.request.dialect.answer()
        return self._sensitivity.remember_answer(call.labels, said.turns())

    def end(self, call: Call, begun: Begun) -> None:
        """Cancels upstream what has not come to its end."""
        self._close(call, begun.attempt, begun)

    async def _sent(
        self, call: Call, attempt: Attempt, request: InferenceRequest
    ) -> UpstreamResponse:
        number = attempt.number
        upstream_id = call.request_id if number == 1 else f"{call.request_id}-{number}"
        # Without a stream the engine says nothing before it has everything.
        timeout_s = self.left_s(call)
        if call.request.stream:
            timeout_s = min(timeout_s, self._timeouts.first_token_s)
        candidate = attempt.grant.candidate
        body = request.sent_to(candidate.variant.served_name, candidate.speaks_vllm)
        return await self._upstreams.send(
            attempt.grant,
            request.path,
            body,
            upstream_id,
            timeout_s,
            attempt.traceparent,
            attempt.was_sent,
        )

    async def _refused(self, call: Call, begun: Begun) -> None:
        status = begun.response.status
        body = await begun.response.body(min(self._timeouts.between_tokens_s, self.left_s(call)))
        begun.attempt.outcome = f"status_{status}"
        if missing := not_offered(status, body):
            raise missing
        if status not in CLIENT_MISTAKES:
            raise UpstreamFailed(f"status_{status}")
        withheld = self._upstreams.withheld(begun.attempt.grant.candidate)
        raise ApiError(status, "invalid_request", engine_message(body, withheld))

    def _read(self, call: Call, attempt: Attempt, body: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamFailed("malformed") from None
        if not isinstance(answer, dict):
            raise UpstreamFailed("malformed")
        if answer.get("error") or answer.get("object") == "error":
            # Its words are not for the client, whatever its status.
            raise UpstreamFailed("engine_error")
        attempt.usage = call.request.dialect.usage(answer)
        attempt.outcome = "complete"
        return answer

    def _close(self, call: Call, attempt: Attempt, begun: Begun | None) -> None:
        """Whatever goes wrong in one step, the others are done."""
        try:
            if begun is not None:
                begun.response.close()
                if begun.stream is not None:
                    attempt.usage = begun.stream.reader.usage
            # Also of an answer that broke off: its client has the part that was sent.
            if call.answer_is_kept:
                with suppress(ApiError):
                    self._remember(call, attempt)
        finally:
            try:
                self._accounting.closed(call, attempt)
            finally:
                self._placement.closed(call, attempt)
