"""The TTFT that is to be expected, as a share of its objective.

The wait for a slot under first come, first served (the requests ahead over the rate at which slots
become free), then the time to read the prompt, and before it those of others that are not read yet.
"""

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.policy.question import Question


def score(q: Question, weight: float) -> Floats:
    expected_s: Floats = np.maximum(q.load, q.slots)
    expected_s -= q.slots
    expected_s *= q.turn_s
    expected_s += q.load * q.reading_s
    if q.facts.prompt_tokens:
        expected_s += q.facts.prompt_tokens * q.selection.prefill_s_per_token
    expected_s *= weight / q.selection.workload.slo.ttft_p95_s
    return expected_s
