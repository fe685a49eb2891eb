"""Scores, one a module: `score(question)` is zero at best and about one where it starts to hurt,
for each candidate; None where it is the same for all.

The lowest weighted sum wins; of equal sums, the endpoint whose name comes first.
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
