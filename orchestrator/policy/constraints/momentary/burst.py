"""A burst pool takes part only while the workload bursts to it."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question
from orchestrator.policy.snapshot import BurstPhase, BurstState

HOME = BurstState()


def feasible(q: Question) -> Bools | None:
    selection = q.selection
    if not selection.while_bursting:
        return None
    state = q.view.snapshot.bursts.get(selection.workload.name, HOME)
    if state.phase is BurstPhase.BURSTING and state.pool in selection.while_bursting:
        return selection.while_bursting[state.pool]
    return selection.while_at_home


def sentence(q: Question, position: int) -> str:
    workload = q.selection.workload.name
    state = q.view.snapshot.bursts.get(workload, HOME)
    return f"workload '{workload}' is {state.phase.value}: {state.reason}"
