"""An answer that has begun goes on with the variant that began it."""

import numpy as np

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question


def feasible(q: Question) -> Bools | None:
    wanted = q.facts.variant
    if not wanted:
        return None
    return np.array([c.variant.name == wanted for c in q.selection.candidates], bool)


def sentence(q: Question, position: int) -> str:
    return f"the answer has begun on variant '{q.facts.variant}'"
