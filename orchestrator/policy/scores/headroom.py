"""The share of an endpoint's slots that will be taken: what is left can take what comes next."""

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats:
    return q.taken * weight
