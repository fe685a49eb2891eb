"""A burst pool takes part only while the workload bursts to it."""

from orchestrator.policy.arrays import Bools
from orchestrator.policy.question import Question
from orchestrator.policy.snapshot import BurstPhase, BurstState

HOME = BurstState()
STALE = BurstState(reason="the snapshot is stale, and nobody vouches for a burst")


def feasible(q: Question) -> Bools | None:
    selection = q.selection
    if not selection.while_bursting:
        return None
    state = _state(q)
    if state.phase is BurstPhase.BURSTING and state.pool in selection.while_bursting:
        return selection.while_bursting[state.pool]
    return selection.while_at_home


def sentence(q: Question, position: int) -> str:
    workload = q.selection.workload.name
    state = _state(q)
    return f"workload '{workload}' is {state.phase.value}: {state.reason}"


def _state(q: Question) -> BurstState:
    """A controller takes a burst's replicas away when the last snapshot that had it is stale."""
    if q.facts.snapshot_age_s > q.view.catalogue.configuration.policy.snapshot_stale_s:
        return STALE
    return q.view.snapshot.bursts.get(q.selection.workload.name, HOME)
