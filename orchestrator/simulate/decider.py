"""The gateway's decisions in a simulation: `decide()` is asked once for what they depend on."""

from collections.abc import Hashable

import numpy as np

from orchestrator.policy.arrays import Floats
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.selection import Selection
from orchestrator.policy.snapshot import Snapshot
from orchestrator.policy.view import View
from orchestrator.simulate import kernel
from orchestrator.simulate.fleet_model import GATEWAY, FleetModel
from orchestrator.simulate.kernel.choice import rounded_prompt

MOST_REMEMBERED = 1_000_000
MOST_KNOWN = 200_000
"""All is forgotten when there is more: to be asked again changes nothing."""
SLOTS, TURN, READING, PRICES = 1, 4, 5, (6, 7)
"""Rows of a view's table."""
REASONS = {"saturated": kernel.SATURATED, "no_capacity": kernel.NO_CAPACITY}


class UnknownSpeed(Exception):
    """Says of which variant, and the mend."""


class Decider:
    """Prompts are rounded before they are decided on, so that equal situations are met again; all
    else is as it is."""

    def __init__(self, model: FleetModel) -> None:
        self._model = model
        self._known: dict[Hashable, int] = {}
        """A number for what is known of a candidate, and for whom it is asked."""
        self._columns = [b""] * len(model.candidates)
        self._moments: dict[int, Hashable] = {}
        self._view: View | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """What is decided on from here on."""
        model = self._model
        self._view = view = View(model.catalogue, snapshot, GATEWAY)
        endpoints = model.state.endpoints
        endpoints["slots"], endpoints["turn_s"] = view.table[SLOTS], view.table[TURN]
        for candidate in model.candidates:
            state = snapshot.endpoints.get(candidate.endpoint)
            if state is None or state.slot_s is None:
                endpoints["turn_s"][candidate.number] = np.nan
        self._number_what_is_known(view)

    def _number_what_is_known(self, view: View) -> None:
        """Anew where it has changed."""
        if len(self._model.scores) > MOST_REMEMBERED or len(self._known) > MOST_KNOWN:
            self._model.scores.clear()
            self._known.clear()
            self._moments.clear()
        held = np.zeros(len(self._columns)) if view.held is None else view.held
        columns = _columns(np.vstack([view.table, held]))
        changed = {n for n, (a, b) in enumerate(zip(columns, self._columns, strict=True)) if a != b}
        self._columns = columns
        for group, workload in enumerate(self._model.workloads):
            burst = view.snapshot.bursts.get(workload.name)
            left = view.snapshot.budget_left_usd.get(workload.name)
            moment = (burst.phase, burst.pool) if burst else None, left is None or left > 0
            is_new = self._moments.get(group) != moment
            self._moments[group] = moment
            for smaller in (0, 1):
                selection = self._selection(group, bool(smaller))
                for place, number in enumerate(selection.numbers.tolist()):
                    if is_new or number in changed:
                        self._number(view, selection, (smaller, group, place), moment)

    def _number(
        self, view: View, selection: Selection, at: tuple[int, int, int], moment: Hashable
    ) -> None:
        smaller, group, place = at
        number = int(selection.numbers[place])
        column = view.table[:, number]
        # Nobody asks what costs a request there nothing more, nor how soon a slot becomes free
        # where one is free: what nobody asks for need not be the same to be met again.
        asked = [*range(TURN), READING, *(() if selection.paid_for[place] else PRICES)]
        held = view.held is not None and bool(view.held[number])
        for is_full in (0, 1):
            seen = column.take([*asked, TURN] if is_full else asked).tobytes()
            key = (group, smaller, number, moment, held, is_full, seen)
            known = self._known.setdefault(key, len(self._known))
            self._model.state.known[smaller, group, place, is_full] = known

    def answer(self) -> None:
        """What the kernel asks for."""
        state, moment = self._model.state, self._model.state.moment
        request = state.requests[moment["asks"][0]]
        smaller = bool(moment["asks_smaller"][0])
        facts = self._facts(int(request["group"]), rounded_prompt(request["prompt_tokens"]))
        decision = self._decide(facts._replace(smaller_variant=smaller))
        passes, total, suits = decision.passes, decision.total, decision.suits
        assert passes is not None, "nobody asks for those who have no place"
        assert total is not None, "nobody asks for those who have no place"
        assert suits is not None, "nobody asks for those who have no place"
        answers = state.answers[: len(total)]
        answers[:] = total
        answers[~passes] = np.inf
        answers[~suits] = np.nan

    def elsewhere(self, number: int) -> int:
        """Where the request goes on whose replica was lost, or why it does not: as the gateway
        looks for it."""
        model = self._model
        request = model.state.requests[number]
        workload = model.workloads[request["group"]]
        lost = model.candidates[request["lost_at"]]
        has_begun = not np.isnan(request["first_token_s"])
        facts = self._facts(int(request["group"]), int(request["prompt_tokens"]))
        facts = facts._replace(
            excluded={lost.endpoint: "was lost"},
            variant=lost.variant.name if has_begun else "",
        )
        decision = self._wherever(facts)
        if decision.grant is None and workload.when_infeasible.min_quality is not None:
            decision = self._wherever(facts._replace(smaller_variant=True))
        if decision.grant is None:
            return REASONS.get(decision.denied or "", kernel.NEVER)
        return decision.grant.candidate.number

    def unknown_speed(self) -> UnknownSpeed:
        """Of where the kernel would have sent a request."""
        candidate = self._model.candidates[self._model.state.moment["chosen"][0]]
        return UnknownSpeed(
            f"variant '{candidate.variant.name}' has no `performance` on "
            f"{candidate.pool.accelerator}, pool '{candidate.pool.name}': add one, with what "
            "replicas do there"
        )

    def _wherever(self, facts: Facts) -> Decision:
        """Not where it was lost, but where nothing else serves, and other replicas are left."""
        decision = self._decide(facts)
        if decision.grant is None and decision.denied != "saturated":
            decision = self._decide(facts._replace(excluded={}))
        return decision

    def _decide(self, facts: Facts) -> Decision:
        assert self._view is not None, "nobody asks before the first tick"
        return decide(facts, self._view)

    def _facts(self, group: int, prompt_tokens: int) -> Facts:
        workload = self._model.workloads[group]
        return Facts(
            workload=workload.name,
            model=workload.models[0],
            prompt_tokens=prompt_tokens,
            inflight=self._model.state.endpoints["inflight"],
        )

    def _selection(self, group: int, smaller: bool) -> Selection:
        workload = self._model.workloads[group]
        return self._model.catalogue.selection(
            workload.name, workload.models[0], workload.data_class, smaller
        )


def _columns(table: Floats) -> list[bytes]:
    return [column.tobytes() for column in table.T.copy()]
