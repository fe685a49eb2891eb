"""Decisions made again from the audit trail, to be explained and compared with the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.config.load import ConfigurationError, Loaded
from orchestrator.config.store import PolicyStore
from orchestrator.ledger.audit import DecisionRow
from orchestrator.ledger.audit_read import Found, find
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts_record import recall
from orchestrator.policy.snapshot import Snapshot
from orchestrator.policy.view import View


class NotRepeatable(Exception):
    """What a decision was made from is not there any more; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Repeated:
    row: DecisionRow
    decision: Decision
    loaded: Loaded
    """The rules by which it was made."""

    @property
    def matches(self) -> bool:
        """Whether it is what was recorded: the choice, every candidate, and every score."""
        grant, row = self.decision.grant, self.row
        return (
            self.decision.candidates_digest() == row.candidates
            and (grant.candidate.endpoint if grant else None) == row.chosen
            and (grant.candidate.zone.name if grant else None) == row.zone
            and self.decision.denied == row.denied
            and self.decision.data_class.label == row.data_class
        )


def repeat(state: Path, request_id: str) -> Iterator[Repeated]:
    """Each decision for a request, by time. Raises AuditError, NotRepeatable."""
    store = PolicyStore(state)
    for found in find(state / "audit", request_id):
        yield _repeated(store, found)


def _repeated(store: PolicyStore, found: Found) -> Repeated:
    row = found.decision
    if found.snapshot is None:
        raise NotRepeatable(f"snapshot {row.snapshot_version} is not in the audit trail")
    try:
        loaded = store.load(row.policy_version)
        snapshot = Snapshot.model_validate_json(found.snapshot.body)
    except (ConfigurationError, ValidationError) as error:
        raise NotRepeatable(str(error)) from None
    catalogue = Catalogue(loaded.configuration, loaded.version)
    view = View(catalogue, snapshot, found.gateway_id)
    return Repeated(row, decide(recall(row.facts, catalogue), view), loaded)
