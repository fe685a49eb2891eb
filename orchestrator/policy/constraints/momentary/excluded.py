"""An endpoint that failed this request, or is ejected for failing others, is not tried again."""

import numpy as np

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools | None:
    if not q.facts.excluded:
        return None
    passes = np.ones(len(q.selection.candidates), bool)
    for endpoint in q.facts.excluded:
        if endpoint in q.selection.position:
            passes[q.selection.position[endpoint]] = False
    return passes


def sentence(q: Question, position: int) -> str:
    return q.facts.excluded[q.selection.candidates[position].endpoint]
