"""The ITL that is to be expected, as a share of its objective: it grows with the batch, from that
of a sequence alone to that with all sequences busy."""

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats | None:
    objective_s = q.selection.workload.slo.itl_p95_s
    if objective_s is None:
        return None
    expected_s: Floats = q.taken * q.selection.itl_growth_s
    expected_s += q.selection.itl_alone_s
    expected_s *= weight / objective_s
    return expected_s
