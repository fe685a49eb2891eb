"""A variant must be as good as the workload requires."""

from orchestrator.policy.constraints.lasting.placement import Placement


def check(p: Placement) -> str | None:
    least, fallback = p.workload.min_quality, p.workload.when_infeasible.min_quality
    if p.smaller_variant and fallback is not None:
        least = min(least, fallback)
    variant = p.candidate.variant
    if variant.quality >= least:
        return None
    return f"quality of '{variant.name}' is {variant.quality:g}; at least {least:g} is required"
