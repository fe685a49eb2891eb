"""How long a request that finds everything full has to wait, as far as that can be foreseen."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from orchestrator.policy.decide import Decision
from orchestrator.policy.view import UNKNOWN

LEAST_RETRY_S = 1


@dataclass(frozen=True, slots=True)
class ExpectedWait:
    first_token_s: float
    """Until a slot is free for it."""
    is_measured: bool
    """Else the time for which requests hold a slot is assumed."""


def expected_wait(decision: Decision, ahead: int) -> ExpectedWait:
    """Of a decision that was denied as `saturated`, with so many requests ahead of this one.

    Slots become free at the rate of all endpoints that would do, of which this gateway gets as
    much as it has of the requests there; those in the backlog and those ahead come first.
    """
    question, suits = decision.question, decision.suits
    assert question is not None, "what is saturated was asked"
    assert suits is not None, "what is saturated was asked"
    open_there = question.load[suits] - 1
    share = np.ones_like(open_there)
    if question.facts.inflight is not None:
        own = question.facts.inflight.take(question.selection.numbers)[suits]
        share = np.maximum(own, 1) / np.maximum(open_there, 1)
    backlog = np.maximum(open_there - question.slots[suits], 0) * share
    per_s = (share / question.turn_s[suits]).sum()
    states = question.view.snapshot.endpoints
    measured = all(
        states.get(candidate.endpoint, UNKNOWN).slot_s is not None
        for candidate, suitable in zip(question.selection.candidates, suits, strict=True)
        if suitable
    )
    return ExpectedWait(float((backlog.sum() + ahead + 1) / per_s), measured)


def retry_after_s(decision: Decision, ahead: int, deadline_s: float) -> int:
    """When a request like this one may be worth another try: the queue is short enough then, or
    what is not ready may be."""
    if decision.denied == "saturated":
        wait_s = expected_wait(decision, ahead).first_token_s - deadline_s
    else:
        question = decision.question
        assert question is not None, "a model that is not found is no matter of capacity"
        wait_s = min(
            (
                candidate.pool.provision_s
                for candidate, ready in zip(
                    question.selection.candidates, question.ready, strict=True
                )
                if not ready
            ),
            default=0,
        )
    return max(LEAST_RETRY_S, ceil(wait_s))
