"""What of a tick is worth an event: each change once."""

from collections.abc import Mapping

from orchestrator.capacity.planner import Observation, Plan
from orchestrator.capacity.provision import NOTHING_ORDERED
from orchestrator.controller.events import EventKind, EventLog
from orchestrator.controller.memory import Memory
from orchestrator.controller.strays import Stray
from orchestrator.policy.snapshot import BurstPhase, BurstState

IDLE = "it has no place in the rules, and nobody uses it"
STEP_S = 5
"""Smaller steps of the machine's clock are no event."""
UNPRICED = "no price of their pool is known: they are in no sum of costs"
LASTING = "is still draining"


class Chronicle:
    def __init__(self, events: EventLog) -> None:
        self._events = events
        self.advice = False
        """Whether what is planned is only said, not done."""
        self._ordered: dict[str, int] = {}
        """The last order of each endpoint that has not been reached."""
        self._failures: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._troubled: dict[str, str] = {}
        self._stood: dict[str, int] = {}
        self._released: set[str] = set()
        self._unwritten = ""
        self._step_s = 0.0

    def planned(self, memory: Memory, plan: Plan, observed: Observation, now_s: float) -> None:
        """What this plan changes of what is remembered, and what nobody remembers."""
        for workload, state in plan.bursts.items():
            before = memory.bursts.get(workload, BurstState())
            where = f" to {state.pool}" if state.pool else ""
            if (before.phase, before.pool) != (state.phase, state.pool):
                what = f"{state.phase.value}{where}"
                self._plan(EventKind.BURST, workload, what, state.reason, now_s)
            elif state.phase is BurstPhase.DRAINING and before.reason != state.reason:
                self._plan(EventKind.BURST, workload, LASTING, state.reason, now_s)
        for endpoint, provision in plan.provisions.items():
            if provision.failures > memory.provisions.get(endpoint, NOTHING_ORDERED).failures:
                what = f"given up, for {provision.retry_at_s - now_s:.0f} s"
                self._events.record(
                    EventKind.GIVE_UP, endpoint, what, provision.reason, now_s=now_s
                )
        for endpoint, standing in observed.standing.items():
            expected = max(
                memory.targets.get(endpoint, 0),
                self._ordered.get(endpoint, 0),
                self._stood.get(endpoint, 0),
            )
            if standing > expected:
                what = f"{standing} replicas are taken over, {expected} were expected"
                self._events.record(
                    EventKind.ADOPT, endpoint, what, plan.reasons.get(endpoint, ""), now_s=now_s
                )
        self._stood = dict(observed.standing)

    def ordered(self, endpoint: str, target: int, reason: str, now_s: float) -> None:
        """A scaling that is asked for; repetitions are no events."""
        if self._ordered.get(endpoint) != target:
            self._ordered[endpoint] = target
            self._plan(EventKind.SCALE, endpoint, f"scale to {target}", reason, now_s)

    def reached(self, endpoint: str) -> None:
        """The next order is an event, whatever it is."""
        self._ordered.pop(endpoint, None)

    def strayed(self, stray: Stray, is_priced: bool, now_s: float) -> None:
        self._released.discard(stray.subject)
        what = f"{stray.found.replicas.total} replicas have no place in the rules"
        why = "" if is_priced else UNPRICED
        self._events.record(EventKind.ADOPT, stray.subject, what, why, now_s=now_s)

    def released(self, stray: Stray, now_s: float) -> None:
        """What has no place in the rules; asking again is no event."""
        if stray.subject not in self._released:
            self._released.add(stray.subject)
            self._plan(EventKind.RELEASE, stray.subject, "release", IDLE, now_s)

    def failures(self, failures: Mapping[str, str], now_s: float) -> None:
        """Of scalings, by endpoint."""
        for endpoint, why in failures.items():
            if self._failures.get(endpoint) != why:
                self._events.record(EventKind.SCALE, endpoint, "does not scale", why, now_s=now_s)
        self._failures = dict(failures)

    def clusters(self, lost: Mapping[str, str], now_s: float) -> None:
        """Those that do not answer, and why."""
        what = "cannot be observed", "is observed again"
        self._lost = self._edges(EventKind.CLUSTER, self._lost, lost, what, now_s)

    def left(self, clusters: Mapping[str, str], now_s: float) -> None:
        """Those that are removed from the rules and watched no longer, and why."""
        for cluster, why in clusters.items():
            self._lost.pop(cluster, None)
            what = "is removed, and watched no longer"
            self._events.record(EventKind.CLUSTER, cluster, what, why, now_s=now_s)

    def prices(self, troubled: Mapping[str, str], now_s: float) -> None:
        """Of pools whose newest price is refused or cannot be had, and why."""
        what = "the newest price is not taken", "the newest price is taken again"
        self._troubled = self._edges(EventKind.PRICE, self._troubled, troubled, what, now_s)

    def state(self, failure: str, now_s: float) -> None:
        """Whether what must not be forgotten could be written; empty: it was."""
        if bool(failure) != bool(self._unwritten):
            what = "is not written" if failure else "is written again"
            self._events.record(
                EventKind.STATE, "controller", f"its memory {what}", failure, now_s=now_s
            )
        self._unwritten = failure

    def clock(self, step_s: float, now_s: float) -> None:
        """By how much the machine's clock was set since the start."""
        if abs(step_s - self._step_s) > STEP_S:
            what = f"the machine's clock was set by {step_s - self._step_s:+.0f} s"
            why = "the time at the controller's start goes on until the next one leads"
            self._events.record(EventKind.CLOCK, "controller", what, why, now_s=now_s)
            self._step_s = step_s

    def _edges(
        self,
        kind: EventKind,
        before: Mapping[str, str],
        after: Mapping[str, str],
        what: tuple[str, str],
        now_s: float,
    ) -> dict[str, str]:
        """Begin and end of what lasts, not each of its reasons."""
        begins, ends = what
        for subject in sorted(after.keys() - before.keys()):
            self._events.record(kind, subject, begins, after[subject], now_s=now_s)
        for subject in sorted(before.keys() - after.keys()):
            self._events.record(kind, subject, ends, now_s=now_s)
        return dict(after)

    def _plan(self, kind: EventKind, subject: str, what: str, reason: str, now_s: float) -> None:
        what = f"advice: {what}" if self.advice else what
        self._events.record(kind, subject, what, reason, now_s=now_s)
