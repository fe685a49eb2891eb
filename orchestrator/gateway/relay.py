"""One request: decide, send, pass on. A stream is committed at its first token.

Before the first token an attempt that fails is made elsewhere, under a grant of its own. After it
the stream goes on to its end or ends with a typed error event; text is never repeated.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from orchestrator.config.spec import Key, Timeouts
from orchestrator.gateway import sse, usage
from orchestrator.gateway.affinity import Affinity
from orchestrator.gateway.answers import Answer
from orchestrator.gateway.ejection import Ejection
from orchestrator.gateway.errors import ApiError, ClientGone, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import OUT_OF_TIME, denial, engine_message, interruption
from orchestrator.gateway.request import InferenceRequest
from orchestrator.gateway.rules import Rules
from orchestrator.gateway.sensitivity import Labels, Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.upstream import Response, UpstreamFailed, Upstreams
from orchestrator.gateway.usage import Usage
from orchestrator.ledger.usage import UsageRecord
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLIENT_MISTAKES = frozenset({400, 413, 422})
"""Upstream answers that say something of the request itself: the client gets them."""
BYTES_PER_TOKEN = 4
"""Of a prompt, for predictions."""
PIECE_BYTES = 64 * 1024
"""Whole answers are sent in pieces of this size, so that a slow client is told from a stuck one."""


@dataclass(slots=True)
class Call:
    """A request on its way, with what has become of it."""

    request_id: str
    key: Key
    rules: Rules
    """By which it was read."""
    labels: Labels
    session_id: str
    request: InferenceRequest
    send: Send
    started_s: float
    """Of the monotonic clock, like every time here."""
    status: int = 0
    """The status that was sent to the client, 0 before that."""
    zone: str = ""
    pool: str = ""
    answer_is_kept: bool = False
    """Its conversation is above the workload's own class."""


@dataclass(slots=True, eq=False)
class Attempt:
    grant: Grant
    number: int
    started_s: float
    first_token_s: float | None = None
    usage: Usage | None = None
    chunks: int = 0
    """Content events passed on; the count of tokens when the engine gives no usage."""
    outcome: str = "cancelled"
    said: Answer = field(default_factory=Answer)
    """What was passed on, where the answer is kept."""

    @property
    def endpoint(self) -> str:
        return self.grant.candidate.endpoint


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
        self._records = records
        self._telemetry = telemetry
        self._ejection = Ejection()
        self._affinity = Affinity()

    async def run(self, call: Call) -> None:
        """Answers the call. Raises ApiError while nothing has been sent yet, ClientGone when a
        whole answer is not read in time."""
        self._remember(call)
        failed: dict[str, str] = {}
        for number in range(1, self._exchange.catalogue.configuration.policy.max_attempts + 1):
            if failed and self._left_s(call) <= 0:
                break
            decision = await self._decided(call, number, failed)
            if decision.grant is None:
                raise denial(decision, bool(failed))
            attempt = Attempt(decision.grant, number, time.monotonic())
            try:
                await self._attempt(call, attempt)
            except UpstreamFailed as failure:
                failed[attempt.endpoint] = f"failed this request: {failure.reason}"
                self._failed(attempt, failure.reason)
            else:
                return
        raise unavailable("upstream_failed", "No replica answered. Try again shortly.")

    def _remember(self, call: Call) -> None:
        own = call.rules.catalogue.workloads[call.key.workload].data_class
        self._telemetry.read(call.key.workload, own, call.labels)
        call.answer_is_kept = self._sensitivity.remember(call.labels, own)

    def _keep_up(self, call: Call) -> None:
        """A request is decided by the rules that it was read by: where others are in force now, it
        is read again, and what was found before still holds. Raises ApiError 401 for a workload
        that is no more."""
        rules = self._exchange.rules
        if call.rules is rules:
            return
        if call.key.workload not in rules.catalogue.workloads:
            raise ApiError(
                401, "invalid_api_key", "The API key's workload is no more.", "authentication_error"
            )
        before = call.labels
        call.rules = rules
        call.labels = self._sensitivity.read(
            rules.classifier,
            call.key.workload,
            max(before.claimed, before.content),
            call.session_id,
            call.request.content,
        )
        self._remember(call)

    async def _decided(self, call: Call, number: int, failed: dict[str, str]) -> Decision:
        """The decision for an attempt, on record. Where nothing is feasible at first, what the
        workload says to that: a smaller variant, or patience."""
        started_s = time.monotonic()
        while True:
            self._keep_up(call)
            workload = call.rules.catalogue.workloads[call.key.workload]
            patience = workload.when_infeasible
            facts, decision = self._decide(call, failed)
            refused = decision.denied not in (None, "model_not_found")
            if refused and patience.min_quality is not None:
                facts, decision = self._decide(call, failed, smaller_variant=True)
            left_s = started_s + min(patience.queue_s, self._left_s(call)) - time.monotonic()
            if decision.denied != "no_capacity" or failed or left_s <= 0:
                break
            await self._exchange.waiting.wait(workload.priority, left_s)
        view = self._exchange.view
        if not self._records.decided(call.request_id, call.key.id, number, facts, decision, view):
            raise unavailable("not_on_record", "Decisions cannot be put on record now.")
        return decision

    def _decide(
        self, call: Call, failed: dict[str, str], smaller_variant: bool = False
    ) -> tuple[Facts, Decision]:
        """Ejected endpoints are left alone while there are others: the last one is tried again."""
        ejected = self._ejection.ejected(time.monotonic())
        facts = self._facts(call, {**ejected, **failed}, smaller_variant)
        decision = decide(facts, self._exchange.view)
        if decision.grant is None and ejected:
            facts = self._facts(call, failed, smaller_variant)
            decision = decide(facts, self._exchange.view)
        return facts, decision

    def _facts(self, call: Call, excluded: dict[str, str], smaller_variant: bool) -> Facts:
        return Facts(
            workload=call.key.workload,
            model=call.request.model,
            claimed=call.labels.claimed,
            session=call.labels.session,
            content=call.labels.content,
            max_tokens=call.request.max_tokens,
            prompt_tokens=len(call.request.body) // BYTES_PER_TOKEN,
            snapshot_age_s=self._exchange.snapshot_age_s,
            inflight=self._telemetry.inflight.counts,
            excluded=excluded,
            affinity=self._affinity.of(call.request.body),
            smaller_variant=smaller_variant,
        )

    async def _attempt(self, call: Call, attempt: Attempt) -> None:
        endpoint = attempt.endpoint
        # A whole answer shows only its end, so its wait says nothing of the first token.
        self._telemetry.opened(
            endpoint, attempt, attempt.started_s if call.request.stream else None
        )
        upstream_id = (
            call.request_id if attempt.number == 1 else f"{call.request_id}-{attempt.number}"
        )
        # Without a stream the engine says nothing before it has everything.
        timeout_s = self._left_s(call)
        if call.request.stream:
            timeout_s = min(timeout_s, self._timeouts.first_token_s)
        served_name = attempt.grant.candidate.variant.served_name
        body = call.request.named(served_name) if served_name else call.request.body
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
            now_s = time.monotonic()
            first_s = attempt.first_token_s
            self._telemetry.closed(
                endpoint, attempt, now_s - first_s if first_s and call.request.stream else None
            )
            self._account(call, attempt, now_s)

    @property
    def _timeouts(self) -> Timeouts:
        return self._exchange.catalogue.configuration.gateway.timeouts

    def _left_s(self, call: Call) -> float:
        """Of the time that the whole answer may take."""
        return call.started_s + self._timeouts.total_s - time.monotonic()

    def _failed(self, attempt: Attempt, reason: str) -> None:
        attempt.outcome = reason
        if reason != OUT_OF_TIME:
            self._telemetry.failed(attempt.endpoint, reason)
            self._ejection.failed(attempt.endpoint, reason, time.monotonic())

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
            attempt.usage = usage.read(answer.get("usage"))
        except (orjson.JSONDecodeError, AttributeError):
            raise UpstreamFailed("malformed") from None
        if call.answer_is_kept:
            attempt.said.take(answer)
            self._keep_answer(call, attempt)
        attempt.outcome = "complete"
        self._first_token(call, attempt)
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
        held: list[bytes] = []
        committed = done = False
        try:
            while not done:
                for received in splitter.feed(await self._chunk(call, attempt, response)):
                    kind, event = sse.read(received, committed)
                    if kind is sse.Kind.ERROR:
                        raise UpstreamFailed("engine_error")
                    if kind is sse.Kind.USAGE:
                        attempt.usage = usage.read(sse.usage(event))
                        if not call.request.wants_usage:
                            continue
                    elif kind is sse.Kind.CONTENT:
                        attempt.chunks += 1
                        if not committed:
                            committed = True
                            self._first_token(call, attempt)
                            await self._start(call, attempt, b"text/event-stream", None)
                        if call.answer_is_kept:
                            attempt.said.take_event(event)
                    if event:
                        held.append(event)
                    if kind is sse.Kind.DONE:
                        done = True
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
            last = b"".join(held) + interruption(failure.reason).event()
            await call.send({"type": "http.response.body", "body": last, "more_body": False})
            return
        if not committed:
            raise UpstreamFailed("empty")
        attempt.outcome = "complete"

    def _keep_answer(self, call: Call, attempt: Attempt) -> None:
        """Raises ApiError 503 when a raised conversation could not be known again."""
        said, attempt.said = attempt.said, Answer()
        for turn in said.turns():
            self._sensitivity.remember_answer(call.labels, turn)

    def _first_token(self, call: Call, attempt: Attempt) -> None:
        now_s = time.monotonic()
        attempt.first_token_s = now_s
        self._ejection.succeeded(attempt.endpoint)
        self._affinity.served(call.request.body, attempt.endpoint)
        if call.request.stream:
            self._telemetry.first_token(
                attempt.endpoint,
                attempt,
                call.key.workload,
                now_s - attempt.started_s,
                now_s - call.started_s,
            )

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

    def _account(self, call: Call, attempt: Attempt, now_s: float) -> None:
        grant = attempt.grant
        candidate, quote = grant.candidate, grant.quote
        used = attempt.usage or Usage(0, attempt.chunks, 0)
        self._telemetry.used(
            attempt.endpoint,
            grant.workload,
            candidate.model.name,
            candidate.zone.name,
            used.prompt_tokens,
            used.completion_tokens,
        )
        first_s = attempt.first_token_s
        self._records.used(
            UsageRecord(
                request_id=call.request_id,
                attempt=attempt.number,
                started_at_s=time.time() - (now_s - attempt.started_s),
                workload=grant.workload,
                key_id=call.key.id,
                data_class=grant.data_class.label,
                model=candidate.model.name,
                variant=candidate.variant.name,
                pool=candidate.pool.name,
                zone=candidate.zone.name,
                policy_version=grant.policy_version,
                snapshot_version=grant.snapshot_version,
                usd_per_gpu_hour=quote.usd_per_gpu_hour if quote else None,
                outcome=attempt.outcome,
                prompt_tokens=used.prompt_tokens,
                cached_tokens=used.cached_tokens,
                completion_tokens=used.completion_tokens,
                usage_source="engine" if attempt.usage else "counted",
                ttft_s=first_s - call.started_s if first_s and call.request.stream else None,
                duration_s=now_s - attempt.started_s,
            )
        )
