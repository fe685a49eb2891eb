"""What is decided for a request, by the rules and the state of this moment and by what endpoints
have made of the requests before it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.gateway.affinity import Affinity
from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.ejection import Ejection
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.metrics import EJECTED
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.view import View


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision, and what it was made on."""

    facts: Facts
    decision: Decision
    view: View


class Decisions:
    def __init__(self, exchange: Exchange, telemetry: Telemetry) -> None:
        self._exchange = exchange
        self._telemetry = telemetry
        self._ejection = Ejection()
        self._affinity = Affinity()
        telemetry.watch(EJECTED, self._ejected)

    def ejected(self) -> dict[str, str]:
        """Endpoints that are left alone now, with the reason."""
        return self._ejection.ejected(time.monotonic())

    def _ejected(self) -> dict[tuple[str, ...], float]:
        return {tuple(endpoint.split("/")): 1 for endpoint in self.ejected()}

    def of(self, call: Call, failed: dict[str, str]) -> Ruling:
        found = self._decide_for(call, failed, smaller_variant=False)
        workload = call.rules.catalogue.workloads[call.caller.workload]
        smaller = workload.when_infeasible.min_quality is not None
        if smaller and found.decision.denied not in (None, "model_not_found"):
            return self._decide_for(call, failed, smaller_variant=True)
        return found

    def _decide_for(self, call: Call, failed: dict[str, str], smaller_variant: bool) -> Ruling:
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
        return Ruling(facts, decision, view)

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

    def closed(self, attempt: Attempt) -> None:
        self._ejection.closed(attempt.endpoint, attempt)

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
