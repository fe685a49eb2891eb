"""Where each attempt of a request goes, by the rules in force, on record."""

import time

from orchestrator.gateway.affinity import Affinity
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.ejection import Ejection
from orchestrator.gateway.errors import ApiError, unavailable
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.records import Records
from orchestrator.gateway.sensitivity import Sensitivity
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts

BYTES_PER_TOKEN = 4
"""Of a prompt, for predictions."""


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

    def remember(self, call: Call) -> None:
        """What the request was found to be, before anything of it is sent. Raises ApiError 503."""
        own = call.rules.catalogue.workloads[call.caller.workload].data_class
        self._telemetry.read(call.caller.workload, own, call.labels)
        call.answer_is_kept = self._sensitivity.remember(call.labels, own)

    async def decided(
        self, call: Call, number: int, failed: dict[str, str], left_s: float
    ) -> Decision:
        """The decision for an attempt, on record. Where nothing is feasible at first, what the
        workload says to that: a smaller variant, or patience. `failed`: endpoints that failed this
        request, with the reason. Raises ApiError."""
        started_s = time.monotonic()
        while True:
            self._keep_up(call)
            workload = call.rules.catalogue.workloads[call.caller.workload]
            patience = workload.when_infeasible
            facts, decision = self._decide(call, failed)
            refused = decision.denied not in (None, "model_not_found")
            if refused and patience.min_quality is not None:
                facts, decision = self._decide(call, failed, smaller_variant=True)
            wait_s = started_s + min(patience.queue_s, left_s) - time.monotonic()
            if decision.denied != "no_capacity" or failed or wait_s <= 0:
                break
            await self._exchange.waiting.wait(workload.priority, wait_s)
        view = self._exchange.view
        if not self._records.decided(
            call.request_id, call.caller.id, number, facts, decision, view
        ):
            raise unavailable("not_on_record", "Decisions cannot be put on record now.")
        return decision

    def ejected(self) -> dict[str, str]:
        """With the reason."""
        return self._ejection.ejected(time.monotonic())

    def opened(self, attempt: Attempt) -> None:
        self._ejection.opened(attempt.endpoint, attempt.started_s)

    def closed(self, attempt: Attempt) -> None:
        self._ejection.closed(attempt.endpoint)

    def succeeded(self, call: Call, attempt: Attempt) -> None:
        self._ejection.succeeded(attempt.endpoint, time.monotonic())
        self._affinity.served(call.request.body, attempt.endpoint)

    def failed(self, attempt: Attempt, reason: str) -> None:
        self._ejection.failed(attempt.endpoint, reason, time.monotonic())

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

    def _decide(
        self, call: Call, failed: dict[str, str], smaller_variant: bool = False
    ) -> tuple[Facts, Decision]:
        """Ejected endpoints are left alone while there are others: the last one is tried again."""
        ejected = self.ejected()
        facts = self._facts(call, {**ejected, **failed}, smaller_variant)
        decision = decide(facts, self._exchange.view)
        if decision.grant is None and ejected:
            facts = self._facts(call, failed, smaller_variant)
            decision = decide(facts, self._exchange.view)
        return facts, decision

    def _facts(self, call: Call, excluded: dict[str, str], smaller_variant: bool) -> Facts:
        return Facts(
            workload=call.caller.workload,
            model=call.request.model,
            claimed=call.labels.claimed,
            session=call.labels.session,
            content=call.labels.content,
            max_tokens=call.request.max_tokens,
            prompt_tokens=len(call.request.body) // BYTES_PER_TOKEN,
            snapshot_age_s=self._exchange.snapshot_age_s,
            inflight=self._telemetry.inflight.counts,
            excluded={**call.avoided, **excluded},
            affinity=self._affinity.of(call.request.body),
            smaller_variant=smaller_variant,
        )
