"""Outside the zones that the workload prefers."""

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats | None:
    outside = q.selection.outside_preferred
    return None if outside is None else outside * weight
