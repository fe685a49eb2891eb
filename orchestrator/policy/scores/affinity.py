"""The share of the prompt that has to be read anew, for not being in the endpoint's KV cache."""

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats | None:
    if not q.facts.affinity:
        return None
    missing = np.full(len(q.selection.candidates), weight)
    for endpoint, share in q.facts.affinity.items():
        if endpoint in q.selection.position:
            missing[q.selection.position[endpoint]] = weight * (1.0 - share)
    return missing
