"""Outside the zones that the workload prefers."""

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question) -> Floats | None:
    return q.selection.outside_preferred
