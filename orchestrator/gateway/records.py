"""What a gateway puts on record: every decision, and what every attempt used. Never content."""

import time
from collections.abc import Mapping

from orchestrator.ledger.audit import AuditLog, DecisionRow, SnapshotRow
from orchestrator.ledger.usage import UsageLedger, UsageRecord
from orchestrator.policy.decide import Decision
from orchestrator.policy.facts import Facts
from orchestrator.policy.facts_record import record
from orchestrator.policy.snapshot import Snapshot
from orchestrator.policy.view import View
from orchestrator.signals.report import AuditHead


class Records:
    """No request waits for any of it."""

    def __init__(self, ledger: UsageLedger, audit: AuditLog) -> None:
        self._ledger = ledger
        self._audit = audit
        self._noted: Snapshot | None = None
        """The snapshot that the audit trail has last."""

    def decided(
        self,
        request_id: str,
        key_id: str,
        attempt: int,
        facts: Facts,
        decision: Decision,
        view: View,
    ) -> bool:
        """False when there is no room for the row: then the decision must not be acted on."""
        if self._noted is not view.snapshot and self._audit.append(
            SnapshotRow(
                view.snapshot.version,
                view.catalogue.version,
                view.snapshot.model_dump_json(),
            )
        ):
            self._noted = view.snapshot
        row = record(facts, view.catalogue)
        if facts.model not in view.catalogue.by_model:
            row["model"] = ""  # it is the client's own text
        grant = decision.grant
        return self._audit.append(
            DecisionRow(
                time_s=time.time(),
                request_id=request_id,
                attempt=attempt,
                workload=facts.workload,
                key_id=key_id,
                data_class=decision.data_class.label,
                facts=row,
                candidates=decision.candidates_digest(),
                chosen=grant.candidate.endpoint if grant else None,
                zone=grant.candidate.zone.name if grant else None,
                denied=decision.denied,
                policy_version=decision.policy_version,
                snapshot_version=view.snapshot.version,
                quote=grant.quote.model_dump() if grant and grant.quote else None,
            )
        )

    def used(self, record: UsageRecord) -> None:
        self._ledger.append(record)

    @property
    def lost(self) -> Mapping[str, int]:
        return {"usage": self._ledger.lost, "audit": self._audit.lost}

    def audit_head(self) -> AuditHead:
        head = self._audit.head()
        return AuditHead(seq=head.seq, hash=head.hash)
