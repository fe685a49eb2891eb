"""Where each attempt of a request goes, by the rules in force, on record."""

import time
from dataclasses import dataclass

from orchestrator.config.spec import Timeouts, Workload
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
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.selection import Selection
from orchestrator.policy.view import View

BYTES_PER_TOKEN = 4
"""Of a prompt, for predictions."""
FIRST_OF_ALL = 101
"""Above every priority that can be configured."""


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

    def _ejected(self) -> dict[tuple[str, ...], float]:
        ejected = self._ejection.ejected(time.monotonic())
        return {tuple(endpoint.split("/")): 1 for endpoint in ejected}

    def remember(self, call: Call) -> None:
        """What the request was found to be, before anything of it is sent. Raises ApiError 503."""
        own = call.rules.catalogue.workloads[call.caller.workload].data_class
        self._telemetry.read(call.caller.workload, own, call.labels)
        call.answer_is_kept = self._sensitivity.remember(call.labels, own)

    async def granted(
        self, call: Call, number: int, failed: dict[str, str], left_s: float, kind: str
    ) -> Grant:
        """Where an attempt may go, on record. Where nothing has room at first, what the workload
        says to that: a smaller variant, or patience. `failed`: endpoints that failed this request,
        with the reason; `left_s`: of the time that it has. Raises ApiError.

        A hedge is no loss: it does not wait, and overtakes nobody."""
        self._keep_up(call)
        found = self._decide(call, failed)
        if found.decision.grant is None or self._admission.busy:
            if kind == "hedge":
                raise unavailable("no_capacity", "No replica has room to spare.")
            found = await self._waited(call, number, failed, left_s, found)
        else:
            self._admission.queue.arrives(call.caller.workload, self._priority(call))
        self._record(call, number, found)
        if found.decision.grant is None:
            raise self._refusal(call, found.decision, bool(failed))
        expected = self._expected_tokens(call)
        call.charged += expected
        self._admission.queue.goes(call.caller.workload, self._priority(call), expected)
        return found.decision.grant

    async def _waited(
        self, call: Call, number: int, failed: dict[str, str], left_s: float, found: Found
    ) -> Found:
        """What is found when it may go, or its time is over. Raises ApiError when it never could
        go in time, or has to make way for others."""
        asked_s = time.monotonic()

        def until_s(decision: Decision) -> float:
            return min(self._until_s(call, failed, decision, asked_s), asked_s + left_s)

        def look(waiter: Waiter[Found]) -> Found | None:
            self._keep_up(call)
            found = self._decide(call, failed)
            if found.decision.grant is None:
                waiter.until_s = until_s(found.decision)
                if waiter.until_s > time.monotonic():
                    return None
            return found

        last_s = until_s(found.decision)
        if last_s <= asked_s:
            return found
        if found.decision.denied == "saturated":
            seen = outlook(found.decision, self._ahead(call, found.decision))
            if seen.is_measured and asked_s + seen.first_token_s > last_s:
                self._record(call, number, found)
                raise deadline_unreachable(self._retry_after_s(call, found.decision))
        selection = self._selection(call, found.decision)
        waiter = Waiter(
            call.caller.workload,
            self._priority(call),
            (
                call.caller.workload,
                call.request.model,
                found.decision.data_class,
                call.variant,
                frozenset(failed),
            ),
            selection.position.keys(),
            selection.home,
            call.started_s,
            self._expected_tokens(call),
            until_s=last_s,
            look=look,
        )
        try:
            return await self._admission.wait(waiter)
        except Shed:
            raise queue_full(self._retry_after_s(call, found.decision)) from None
        finally:
            call.queued_s += time.monotonic() - asked_s

    def _until_s(
        self, call: Call, failed: dict[str, str], decision: Decision, asked_s: float
    ) -> float:
        """Until when it may wait, by what it waits for."""
        may_be_full = decision.grant is not None or decision.denied == "saturated"
        if call.variant:
            # Its client has the beginning, and hears nothing meanwhile.
            return asked_s + self._timeouts(call).between_tokens_s if may_be_full else asked_s
        if may_be_full:
            return call.started_s + self._deadline_s(call)
        if decision.denied == "no_capacity" and not failed:
            return call.started_s + self._workload(call).when_infeasible.queue_s
        return asked_s

    def _priority(self, call: Call) -> int:
        """Whoever has begun an answer goes on with it before others begin."""
        return FIRST_OF_ALL if call.variant else self._workload(call).priority

    def _deadline_s(self, call: Call) -> float:
        own = self._workload(call).slo.deadline_s
        return self._timeouts(call).first_token_s if own is None else own

    def _timeouts(self, call: Call) -> Timeouts:
        return call.rules.catalogue.configuration.gateway.timeouts

    def _workload(self, call: Call) -> Workload:
        return call.rules.catalogue.workloads[call.caller.workload]

    def _selection(self, call: Call, decision: Decision) -> Selection:
        """Where such requests may ever run."""
        smaller = self._workload(call).when_infeasible.min_quality is not None
        return call.rules.catalogue.selection(
            call.caller.workload, call.request.model, decision.data_class, smaller
        )

    def _ahead(self, call: Call, decision: Decision) -> int:
        endpoints = self._selection(call, decision).position.keys()
        return self._admission.queue.ahead(call.caller.workload, self._priority(call), endpoints)

    def _retry_after_s(self, call: Call, decision: Decision) -> int:
        return retry_after_s(decision, self._ahead(call, decision), self._deadline_s(call))

    def _expected_tokens(self, call: Call) -> float:
        return self._admission.queue.expected_tokens(
            call.caller.workload, _prompt_tokens(call), call.request.max_tokens
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
        waits = decision.denied in ("saturated", "no_capacity")
        return denial(decision, tried, self._retry_after_s(call, decision) if waits else 0)

    def opened(self, attempt: Attempt) -> None:
        self._ejection.opened(attempt.endpoint, attempt.started_s)

    def succeeded(self, call: Call, attempt: Attempt) -> None:
        self._ejection.succeeded(attempt.endpoint, time.monotonic())
        self._affinity.served(call.request.body, attempt.endpoint)

    def failed(self, attempt: Attempt, reason: str) -> None:
        self._ejection.failed(attempt.endpoint, reason, time.monotonic())

    def closed(self, call: Call, attempt: Attempt) -> None:
        """Its place is free again, and its workload has had this service."""
        self._ejection.closed(attempt.endpoint)
        self._admission.queue.ended(
            call.caller.workload,
            call.charged,
            attempt.used.prompt_tokens,
            attempt.used.completion_tokens,
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
        """Ejected endpoints are left alone while there are others, be they full: the last one is
        tried again."""
        view = self._exchange.view
        ejected = self._ejection.ejected(time.monotonic())
        facts = self._facts(call, {**ejected, **failed}, smaller_variant)
        decision = decide(facts, view)
        if ejected and decision.grant is None and decision.denied != "saturated":
            facts = self._facts(call, failed, smaller_variant)
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
            prompt_tokens=_prompt_tokens(call),
            snapshot_age_s=self._exchange.snapshot_age_s,
            inflight=self._telemetry.inflight.counts,
            excluded=excluded,
            affinity=self._affinity.of(call.request.body),
            variant=call.variant,
            smaller_variant=smaller_variant,
        )


def _prompt_tokens(call: Call) -> int:
    return len(call.request.body) // BYTES_PER_TOKEN
