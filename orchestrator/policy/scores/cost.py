"""What a request costs there and nowhere else, as a share of the workload's ceiling.

Replicas that run anyway are paid for: an idle slot there costs nothing more.
"""

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats | None:
    if q.selection.metered is None:
        return None
    ceiling = q.selection.workload.price_ceiling
    if ceiling.usd_per_million_tokens is not None:
        share = q.usd_per_million_tokens * (weight / ceiling.usd_per_million_tokens)
    elif ceiling.usd_per_gpu_hour is not None:
        share = q.usd_per_gpu_hour * (weight / ceiling.usd_per_gpu_hour)
    else:
        share = np.full_like(q.load, weight)
    return np.where(q.selection.metered, share, 0.0)
