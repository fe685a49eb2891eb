"""What every attempt used, to whom it belongs, in the ledger and in the metrics."""

import time

from orchestrator.gateway.call import Attempt, Call
from orchestrator.gateway.records import Records
from orchestrator.gateway.telemetry import Telemetry
from orchestrator.ledger.usage import UsageRecord


class Accounting:
    def __init__(self, records: Records, telemetry: Telemetry) -> None:
        self._records = records
        self._telemetry = telemetry

    def opened(self, call: Call, attempt: Attempt) -> None:
        call.attempts.append(attempt)
        if call.request.dialect.uses_gpu:
            attempt.estimated_prompt_tokens = call.request.estimated_prompt_tokens
        if call.trace is not None:
            attempt.trace = call.trace.attempt(call, attempt)
        # A whole answer shows only its end, so its wait says nothing of the first token.
        self._telemetry.opened(
            attempt.endpoint, attempt, attempt.asked_s if call.request.stream else None
        )

    def first_token(self, call: Call, attempt: Attempt) -> None:
        now_s = time.monotonic()
        attempt.first_token_s = now_s
        if call.request.stream:
            self._telemetry.first_token(
                attempt.endpoint,
                attempt,
                call.caller.workload,
                attempt.grant.candidate.model.name,
                now_s - attempt.asked_s,
                now_s - call.started_s,
            )

    def failed(self, attempt: Attempt, reason: str) -> None:
        self._telemetry.failed(attempt.endpoint, reason)

    def closed(self, call: Call, attempt: Attempt) -> None:
        """Whatever became of the attempt, it is billed."""
        now_s = time.monotonic()
        first_s = attempt.first_token_s
        slot_s = now_s - first_s if first_s and call.request.stream else None
        self._telemetry.closed(attempt.endpoint, attempt, attempt.kind, attempt.outcome, slot_s)
        grant, used = attempt.grant, attempt.used
        candidate, quote = grant.candidate, grant.quote
        if slot_s is not None and attempt.outcome == "complete" and used.completion_tokens > 1:
            self._telemetry.paced(
                attempt.endpoint,
                grant.workload,
                candidate.model.name,
                slot_s / (used.completion_tokens - 1),
            )
        self._telemetry.used(
            attempt.endpoint,
            grant.workload,
            candidate.model.name,
            candidate.zone.name,
            used.prompt_tokens,
            used.completion_tokens,
            used.cached_tokens,
        )
        if attempt.trace is not None:
            attempt.trace.end(attempt)
        self._records.used(
            UsageRecord(
                request_id=call.request_id,
                attempt=attempt.number,
                started_at_s=time.time() - (now_s - attempt.started_s),
                workload=grant.workload,
                key_id=call.caller.id,
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
                usage_source=attempt.usage_source,
                ttft_s=first_s - call.started_s if first_s and call.request.stream else None,
                duration_s=now_s - attempt.started_s,
            )
        )
