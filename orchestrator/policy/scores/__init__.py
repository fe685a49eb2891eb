"""Scores, one a module: `score(question, weight)` is, for each candidate, zero at best and about
`weight` where it starts to hurt; None where it is the same for all. The caller may add to it.

The lowest sum wins; of equal sums, the endpoint whose name comes first.
"""

from orchestrator.policy.scores import affinity, cost, headroom, itl, ttft, zone

SCORES = {
    "ttft": ttft,
    "itl": itl,
    "cost": cost,
    "zone": zone,
    "headroom": headroom,
    "affinity": affinity,
}
"""By the names of their weights."""
