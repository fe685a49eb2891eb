"""Scores, one a module: `score(question, weight)` is zero at best and about `weight` where it starts
to hurt, for each candidate; None where it is the same for all. What it returns may be added to.

The lowest sum wins; of equal sums, the endpoint whose name comes first.
"""

from orchestrator.policy.scores import affinity, cost, headroom, itl, ttft, zone

SCORES = (
    ("ttft", ttft),
    ("itl", itl),
    ("cost", cost),
    ("zone", zone),
    ("headroom", headroom),
    ("affinity", affinity),
)
