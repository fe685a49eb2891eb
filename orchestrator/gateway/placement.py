"""Where each attempt of a request goes, by the rules in force, on record."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.config.spec import Workload
from orchestrator.gateway.admission import Admission, Shed, Waiter
from orchestrator.gateway.affinity import Affinity
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.ejection import Ejection
from orchestrator.gateway.errors import ApiError, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.metrics import EJECTED
from orchestrator.gateway.outlook import outlook, retry_after_s
from orchestrator.gateway.records import Records
from orchestrator.gateway.refusals import deadline_unreachable, denial, queue_full
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.selection import Selection
from orchestrator.policy.view import View


@dataclass(frozen=True, slots=True)
class Found:
    """A decision, and what it was made on."""

    facts: Facts
    decision: Decision
    view: View


class Placement:
    def __init__(
        self,
        exchange: Exchange,
        sensitivity: Sensitivity,
        records: Records,
        telemetry: Telemetry,
    ) -> None:
        self._exchange = exchange
        self._sensitivity = sensitivity
        self._records = records
        self._telemetry = telemetry
        self._ejection = Ejection()
        self._affinity = Affinity()
        self._admission: Admission[Found] = exchange.admission
        telemetry.watch(EJECTED, self._ejected)

    def ejected(self) -> dict[str, str]:
        """Endpoints that are left alone now, with the reason."""
        return self._ejection.ejected(time.monotonic())

    def _ejected(self) -> dict[tuple[str, ...], float]:
        return {tuple(endpoint.split("/")): 1 for endpoint in self.ejected()}

    def remember(self, call: Call) -> None:
        """What the request was found to be, before anything of it is sent. Raises ApiError 503."""
        own = call.rules.catalogue.workloads[call.caller.workload].data_class
        self._telemetry.read(call.caller.workload, own, call.labels)
        call.answer_is_kept = self._sensitivity.remember(call.labels, own)

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
        does not wait and overtakes nobody. Raises ApiError."""
        asked_s = time.monotonic()
        self._keep_up(call)
        found = self._decide(call, failed)
        queue, workload = self._admission.queue, self._workload(call)
        if spare:
            if found.decision.grant is None or self._admission.busy:
                raise unavailable("no_capacity", "No replica has room to spare.")
        elif left_s > 0 and (found.decision.grant is None or self._admission.busy):
            if self._until_s(call, failed, found.decision) > asked_s:
                try:
                    found = await self._wait(call, number, failed, found, asked_s + left_s)
                finally:
                    call.queued_s += time.monotonic() - asked_s
        else:
            queue.arrives(workload.name, workload.priority)
        self._record(call, number, found)
        grant = found.decision.grant
        if grant is None:
            raise self._refusal(call, found.decision, bool(failed))
        expected = self._expected_tokens(call)
        call.charged += expected
        queue.goes(workload.name, workload.priority, expected)
        return grant

    async def _wait(
        self,
        call: Call,
        number: int,
        failed: dict[str, str],
        found: Found,
        latest_s: float,
    ) -> Found:
        """Until it may go, or its time is over. Raises ApiError when it never could in time, or
        has to make way for others."""

        def until_s(decision: Decision) -> float:
            return min(self._until_s(call, failed, decision), latest_s)

        def look(waiter: Waiter[Found]) -> Found | None:
            self._keep_up(call)
            found = self._decide(call, failed)
            if found.decision.grant is None:
                waiter.until_s = until_s(found.decision)
                if waiter.until_s > time.monotonic():
                    return None
            return found

        workload = self._workload(call)
        waiter = self._waiter(call, failed, found.decision, until_s(found.decision), look)
        if found.decision.denied == "saturated":
            seen = outlook(found.decision, self._ahead(call, found.decision))
            if seen.is_measured and time.monotonic() + seen.first_token_s > waiter.until_s:
                self._record(call, number, found)
                raise self._shed(call, found.decision, deadline_unreachable)
        with self._telemetry.queued(workload.name, workload.priority):
            try:
                return await self._admission.wait(waiter)
            except Shed:
                raise self._shed(call, found.decision, queue_full) from None

    def _waiter(
        self,
        call: Call,
        failed: dict[str, str],
        decision: Decision,
        until_s: float,
        look: Callable[[Waiter[Found]], Found | None],
    ) -> Waiter[Found]:
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

    def _record(self, call: Call, number: int, found: Found) -> None:
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

    def place_elsewhere(self, call: Call, lost: Candidate, moving: Mapping[str, int]) -> str | None:
        """The endpoint where there is room for the rest of an answer, with so many moving to each
        already. None where there is none."""
        view = self._exchange.view
        workload = view.catalogue.workloads.get(call.caller.workload)
        if workload is None or call.request.model not in workload.models:
            return None
        facts = self._facts(call, {lost.endpoint: "will be lost"}, smaller_variant=True)
        decision = decide(facts._replace(variant=lost.variant.name), view)
        if decision.grant is None or decision.question is None:
            return None
        q, endpoint = decision.question, decision.grant.candidate.endpoint
        position = q.selection.position[endpoint]
        has_room = q.load[position] + moving.get(endpoint, 0) <= q.room[position]
        return endpoint if has_room else None

    def opened(self, attempt: Attempt) -> None:
        self._ejection.opened(attempt.endpoint, attempt, attempt.started_s)

    def succeeded(self, call: Call, attempt: Attempt) -> None:
        self._ejection.succeeded(attempt.endpoint, time.monotonic())
        self._affinity.served(call.request.body, attempt.endpoint)

    def failed(self, attempt: Attempt, reason: str) -> None:
        self._ejection.failed(attempt.endpoint, attempt, reason, time.monotonic())

    def closed(self, call: Call, attempt: Attempt) -> None:
        """Its place is free again, and its workload has had this service."""
        self._ejection.closed(attempt.endpoint, attempt)
        used = attempt.used
        self._admission.queue.ended(
            call.caller.workload, call.charged, used.prompt_tokens, used.completion_tokens
        )
        call.charged = 0.0
        self._admission.stir(attempt.endpoint)

    def _keep_up(self, call: Call) -> None:
        """A request is decided by the rules that it was read by: where others are in force now, it
        is read again, and what was found before still holds. Raises ApiError 401 for a workload
        that is no more."""
        rules = self._exchange.rules
        if call.rules is rules:
            return
        if call.caller.workload not in rules.catalogue.workloads:
            raise ApiError(
                401, "invalid_api_key", "The API key's workload is no more.", "authentication_error"
            )
        before = call.labels
        call.rules = rules
        call.labels = self._sensitivity.read(
            rules.classifier,
            call.caller.workload,
            max(before.claimed, before.content),
            call.session_id,
            call.request.content,
        )
        self.remember(call)

    def _decide(self, call: Call, failed: dict[str, str]) -> Found:
        found = self._decide_for(call, failed, smaller_variant=False)
        smaller = self._workload(call).when_infeasible.min_quality is not None
        if smaller and found.decision.denied not in (None, "model_not_found"):
            return self._decide_for(call, failed, smaller_variant=True)
        return found

    def _decide_for(self, call: Call, failed: dict[str, str], smaller_variant: bool) -> Found:
        """Ejected endpoints, and those that failed the request, are left alone while there are
        others, be they full: the last one is tried again, if one replica is not all that it is."""
        view = self._exchange.view
        ejected = self.ejected()
        facts = self._facts(call, {**ejected, **failed}, smaller_variant)
        decision = decide(facts, view)
        if decision.grant is None and decision.denied != "saturated" and (ejected or failed):
            # One replica of several may be lost, and the others do well.
            lost = {e: why for e, why in failed.items() if view.replicas(e) < 2}
            if ejected or lost != failed:
                facts = self._facts(call, lost, smaller_variant)
                decision = decide(facts, view)
        return Found(facts, decision, view)

    def _facts(self, call: Call, excluded: dict[str, str], smaller_variant: bool) -> Facts:
        return Facts(
            workload=call.caller.workload,
            model=call.request.model,
            claimed=call.labels.claimed,
            session=call.labels.session,
            content=call.labels.content,
            max_tokens=call.request.max_tokens,
            prompt_tokens=call.request.estimated_prompt_tokens,
            snapshot_age_s=self._exchange.snapshot_age_s,
            inflight=self._telemetry.inflight.counts,
            excluded={**call.avoided, **excluded},
            affinity=self._affinity.of(call.request.body),
            variant=call.variant,
            smaller_variant=smaller_variant,
        )
