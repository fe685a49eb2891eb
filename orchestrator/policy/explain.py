"""A decision as data for people and machines."""

from typing import Any

from orchestrator.policy.decide import Decision


def explain(decision: Decision) -> dict[str, Any]:
    """The documented shape of `explain --json`: the choice, and every candidate with its reason."""
    chosen = None
    if decision.grant is not None:
        candidate, quote = decision.grant.candidate, decision.grant.quote
        chosen = {
            "pool": candidate.pool.name,
            "variant": candidate.variant.name,
            "zone": candidate.zone.name,
            "quote": quote.model_dump() if quote else None,
        }
    return {
        "decision": chosen,
        "denied": decision.denied,
        "data_class": decision.data_class.label,
        "policy_version": decision.policy_version,
        "candidates": [
            {
                "pool": v.candidate.pool.name,
                "variant": v.candidate.variant.name,
                "zone": v.candidate.zone.name,
                "feasible": v.rejected_by is None,
                "rejected_by": v.rejected_by,
                "detail": v.detail,
                "score": v.score,
            }
            for v in decision.verdicts
        ],
    }
