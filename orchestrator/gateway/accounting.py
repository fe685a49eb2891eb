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
        # A whole answer shows only its end, so its wait says nothing of the first token.
        self._telemetry.opened(
            attempt.endpoint, attempt, attempt.started_s if call.request.stream else None
        )

    def first_token(self, call: Call, attempt: Attempt) -> None:
        now_s = time.monotonic()
        attempt.first_token_s = now_s
        if call.request.stream:
            self._telemetry.first_token(
                attempt.endpoint,
                attempt,
                call.caller.workload,
                now_s - attempt.started_s,
                now_s - call.started_s,
            )

    def failed(self, attempt: Attempt, reason: str) -> None:
        self._telemetry.failed(attempt.endpoint, reason)

    def closed(self, call: Call, attempt: Attempt) -> None:
        """Whatever became of the attempt, it is billed."""
        now_s = time.monotonic()
        first_s = attempt.first_token_s
        self._telemetry.closed(
            attempt.endpoint, attempt, now_s - first_s if first_s and call.request.stream else None
        )
        grant = attempt.grant
        candidate, quote = grant.candidate, grant.quote
        used = attempt.usage or attempt.counted
        self._telemetry.used(
            attempt.endpoint,
            grant.workload,
            candidate.model.name,
            candidate.zone.name,
            used.prompt_tokens,
            used.completion_tokens,
        )
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
                usage_source="engine" if attempt.usage else "counted",
                ttft_s=first_s - call.started_s if first_s and call.request.stream else None,
                duration_s=now_s - attempt.started_s,
            )
        )
