"""Where each attempt of a request goes, by the rules in force, on record."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from orchestrator.config.spec import Workload
from orchestrator.gateway.admission import Admission, Outdated, Shed, Waiter
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.decisions import Decisions, Ruling
from orchestrator.gateway.errors import ApiError, unavailable, workload_is_no_more
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.expected_wait import expected_wait, retry_after_s
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import deadline_unreachable, denial, queue_full
from orchestrator.gateway.sensitivity import Sensitivity, written
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.gateway.usage import NOTHING, Usage
from orchestrator.policy.decide import Decision
from orchestrator.policy.grant import Grant
from orchestrator.policy.selection import Selection


class Placement:
    def __init__(
        self,
        exchange: Exchange,
        admission: Admission[Grant],
        decisions: Decisions,
        sensitivity: Sensitivity,
        records: Records,
        telemetry: Telemetry,
    ) -> None:
        self._exchange = exchange
        self._sensitivity = sensitivity
        self._records = records
        self._telemetry = telemetry
        self._decisions = decisions
        self._admission = admission
        self.follow()

    def follow(self) -> None:
        """After an exchange with the controller. With a new snapshot or without: what rested an
        endpoint may be over."""
        spec = self._exchange.catalogue.configuration.gateway
        self._admission.queue.limit = spec.max_queued_requests
        self._admission.stir()

    def read(self, call: Call) -> bool:
        """Counts what the request was found to be. Returns whether it has to be remembered before
        anything of it is sent. Raises ApiError 503."""
        own = call.rules.catalogue.workloads[call.caller.workload].data_class
        self._telemetry.read(call.caller.workload, own, call.labels)
        call.answer_is_kept = self._sensitivity.raises(call.labels, own)
        return call.answer_is_kept

    async def remember(self, call: Call) -> None:
        """Raises ApiError 503."""
        await written(self._sensitivity.remember(call.labels))

    async def granted(
        self,
        call: Call,
        number: int,
        failed: dict[str, str],
        left_s: float,
        spare: bool = False,
    ) -> Grant:
        """Where an attempt may go, on record. Where nothing has room at first, what the workload
        says to that: a smaller variant, or patience. `failed`: endpoints that failed this request,
        with the reason; `left_s`: of the time that it may wait; `spare`: it is no loss, so that it
        does not wait and overtakes nobody. The place there is taken, until the attempt is closed.
        Raises ApiError."""
        asked_s = time.monotonic()
        if number > 1:
            _check_again(call)
        if call.rules is not self._exchange.rules:
            await self._keep_up(call)
        found = self._decisions.of(call, failed)
        queue, workload = self._admission.queue, self._workload(call)
        if spare:
            if found.decision.grant is None or self._admission.busy:
                raise unavailable("no_capacity", "No replica has room to spare.")
        elif left_s > 0 and (found.decision.grant is None or self._admission.busy):
            if self._until_s(call, failed, found.decision) > asked_s:
                try:
                    return await self._wait(call, number, failed, found, asked_s + left_s)
                finally:
                    call.queued_s += time.monotonic() - asked_s
        else:
            queue.arrives(workload.name, workload.priority)
        return self._taken(call, number, failed, found)

    def _taken(self, call: Call, number: int, failed: dict[str, str], found: Ruling) -> Grant:
        """What was decided just now goes on record, and its place is taken, before anything else is
        decided. Raises ApiError."""
        self._record(call, number, found)
        grant = found.decision.grant
        if grant is None:
            raise self._refusal(call, found.decision, bool(failed))
        workload, expected = self._workload(call), self._expected_tokens(call)
        call.charged += expected
        self._admission.queue.goes(workload.name, workload.priority, expected)
        self._telemetry.inflight.add(grant.candidate.endpoint, 1)
        return grant

    async def _wait(
        self,
        call: Call,
        number: int,
        failed: dict[str, str],
        found: Ruling,
        latest_s: float,
    ) -> Grant:
        """Until it may go, or its time is over. Raises ApiError when it never could in time, or
        has to make way for others."""
        granted: Grant | None = None

        def until_s(decision: Decision) -> float:
            return min(self._until_s(call, failed, decision), latest_s)

        def look(waiter: Waiter[Grant]) -> Grant | None:
            nonlocal granted
            if call.rules is not self._exchange.rules:
                raise Outdated
            found = self._decisions.of(call, failed)
            if found.decision.grant is not None:
                _check_again(call)
            else:
                waiter.until_s = until_s(found.decision)
                if waiter.until_s > time.monotonic():
                    return None
            granted = self._taken(call, number, failed, found)
            return granted

        async def renew() -> Waiter[Grant]:
            await self._keep_up(call)
            found = self._decisions.of(call, failed)
            if found.decision.denied == "model_not_found":
                self._record(call, number, found)
                raise self._refusal(call, found.decision, bool(failed))
            return waiter_for(found.decision)

        def waiter_for(decision: Decision) -> Waiter[Grant]:
            return self._waiter(call, failed, decision, until_s(decision), look, renew)

        workload = self._workload(call)
        waiter = waiter_for(found.decision)
        if found.decision.denied == "saturated":
            seen = expected_wait(found.decision, self._ahead(call, found.decision))
            if seen.is_measured and time.monotonic() + seen.first_token_s > waiter.until_s:
                self._record(call, number, found)
                raise self._shed(call, found.decision, deadline_unreachable)
        with self._telemetry.queued(workload.name, workload.priority):
            try:
                return await self._admission.wait(waiter)
            except Shed:
                self._record(call, number, found)
                raise self._shed(call, found.decision, queue_full) from None
            except asyncio.CancelledError:
                if granted is not None:
                    self.give_back(call, granted.candidate.endpoint)
                raise

    def _waiter(
        self,
        call: Call,
        failed: dict[str, str],
        decision: Decision,
        until_s: float,
        look: Callable[[Waiter[Grant]], Grant | None],
        renew: Callable[[], Awaitable[Waiter[Grant]]],
    ) -> Waiter[Grant]:
        workload, selection = self._workload(call), self._selection(call, decision)
        return Waiter(
            workload.name,
            workload.priority,
            (
                workload.name,
                call.request.model,
                decision.data_class,
                frozenset({*failed, *call.avoided}),
            ),
            selection.position.keys(),
            selection.home,
            call.started_s,
            self._expected_tokens(call),
            until_s=until_s,
            look=look,
            renew=renew,
        )

    def _selection(self, call: Call, decision: Decision) -> Selection:
        """Where such requests may ever run."""
        workload = self._workload(call)
        return call.rules.catalogue.selection(
            workload.name,
            call.request.model,
            decision.data_class,
            workload.when_infeasible.min_quality is not None,
        )

    def _ahead(self, call: Call, decision: Decision) -> int:
        workload, selection = self._workload(call), self._selection(call, decision)
        return self._admission.queue.ahead(
            workload.name, workload.priority, selection.position.keys()
        )

    def _until_s(self, call: Call, failed: dict[str, str], decision: Decision) -> float:
        """Until when it may wait, by what it waits for."""
        workload = self._workload(call)
        if decision.grant is not None or decision.denied == "saturated":
            return call.started_s + self._deadline_s(call)
        if decision.denied == "no_capacity" and not failed:
            return call.started_s + workload.when_infeasible.queue_s
        return call.started_s

    def _deadline_s(self, call: Call) -> float:
        own = self._workload(call).slo.deadline_s
        timeouts = call.rules.catalogue.configuration.gateway.timeouts
        return timeouts.first_token_s if own is None else own

    def _workload(self, call: Call) -> Workload:
        return call.rules.catalogue.workloads[call.caller.workload]

    def _expected_tokens(self, call: Call) -> float:
        return self._admission.queue.expected_tokens(
            call.caller.workload, call.request.estimated_prompt_tokens, call.request.max_tokens
        )

    def _record(self, call: Call, number: int, found: Ruling) -> None:
        """Raises ApiError 503."""
        if call.trace is not None:
            call.trace.decided(number, found.decision)
        if not self._records.decided(
            call.request_id, call.caller.id, number, found.facts, found.decision, found.view
        ):
            raise unavailable("not_on_record", "Decisions cannot be put on record now.")

    def _refusal(self, call: Call, decision: Decision, tried: bool) -> ApiError:
        if decision.denied not in ("saturated", "no_capacity"):
            return denial(decision, tried, 0)
        return self._shed(call, decision, partial(denial, decision, tried))

    def _shed(self, call: Call, decision: Decision, refusal: Callable[[int], ApiError]) -> ApiError:
        """The refusal, with the time after which another try may succeed."""
        ahead = self._ahead(call, decision)
        error = refusal(retry_after_s(decision, ahead, self._deadline_s(call)))
        workload = self._workload(call)
        self._telemetry.shed(workload.name, workload.priority, error.code)
        return error

    def closed(self, call: Call, attempt: Attempt) -> None:
        self._decisions.closed(attempt)
        self.give_back(call, attempt.endpoint, attempt.used)

    def give_back(self, call: Call, endpoint: str, used: Usage = NOTHING) -> None:
        """Its place is free again, and its workload has had this service."""
        self._telemetry.inflight.add(endpoint, -1)
        self._admission.queue.ended(
            call.caller.workload, call.charged, used.prompt_tokens, used.completion_tokens
        )
        call.charged = 0.0
        self._admission.stir(endpoint)

    async def _keep_up(self, call: Call) -> None:
        """A request is decided by the rules that it was read by: where others are in force now, it
        is read again, in a thread since many may have to be at once, until no others came
        meanwhile. What was found before still holds. Raises ApiError 401 for a workload that is no
        more."""
        while call.rules is not (rules := self._exchange.rules):
            if call.caller.workload not in rules.catalogue.workloads:
                raise workload_is_no_more()
            before = call.labels
            labels = await asyncio.to_thread(
                self._sensitivity.read,
                rules.classifier,
                call.caller.workload,
                max(before.claimed, before.content),
                call.session_id,
                call.request.content,
            )
            call.rules, call.labels = rules, labels
            if self.read(call):
                await self.remember(call)


def _check_again(call: Call) -> None:
    """Whether who waited may still ask for this: keys and tokens may have ended meanwhile, and
    scopes changed. Raises ApiError 401 and 403, and what `Call.authenticate` raises."""
    caller = call.authenticate()
    if caller.workload != call.caller.workload:
        raise ApiError(
            401,
            "invalid_api_key",
            "The API key or token speaks for another workload by now.",
            "authentication_error",
        )
    caller.check_model(call.request.model)
    caller.check_endpoint(call.request.dialect.name)
