"""Where lines could run now, by `decide()`: it alone says what is feasible, and in which order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.batch.schedule import Room
from orchestrator.policy.decide import decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.question import Question
from orchestrator.policy.view import View

BUSY = "has no idle slot for a line that can wait"
UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Survey:
    denied: str | None
    """Why no endpoint can take such a line now, as decisions say it."""
    rooms: tuple[Room, ...]
    """Every endpoint that can, the best first."""

    @property
    def slots(self) -> float:
        return sum(room.slots for room in self.rooms)


def survey(facts: Facts, view: View, own: Mapping[str, int], others: Mapping[str, int]) -> Survey:
    """`facts` tell of the requests that this gateway has open; `own` are the lines among them, by
    endpoint, and `others` the lines that other gateways have open. Grants nothing: each line is
    decided when it runs."""
    rooms: list[Room] = []
    excluded = dict(facts.excluded)
    while True:
        decision = decide(facts._replace(excluded=excluded), view)
        if decision.grant is None or decision.question is None:
            return Survey(decision.denied if not rooms else None, tuple(rooms))
        endpoint = decision.grant.candidate.endpoint
        rooms.append(_room(endpoint, decision.question, own, others))
        excluded[endpoint] = BUSY


def others_than(kept: Collection[str], model: str, view: View) -> dict[str, str]:
    """What a line that was given an idle slot is kept from, with the reason."""
    candidates = view.catalogue.by_model.get(model, ())
    return {c.endpoint: BUSY for c in candidates if c.endpoint not in kept}


def _room(
    endpoint: str, question: Question, own: Mapping[str, int], others: Mapping[str, int]
) -> Room:
    position = question.selection.position[endpoint]
    candidate = question.selection.candidates[position]
    inflight = question.facts.inflight
    here = 0 if inflight is None else int(inflight[candidate.number])
    elsewhere = float(question.load[position]) - 1 - here
    state = question.view.snapshot.endpoints.get(endpoint)
    by_the_token = candidate.pool.price.tokens is not None
    return Room(
        endpoint=endpoint,
        slots=float(question.slots[position]),
        # The lines of other gateways are not counted at the moment of the snapshot.
        urgent=max(0, here - own.get(endpoint, 0)) + max(0, elsewhere - others.get(endpoint, 0)),
        queued=state is not None and state.waiting > 0,
        paid_for=bool(question.selection.paid_for[position]),
        usd_per_gpu_hour=UNKNOWN if by_the_token else float(question.usd_per_gpu_hour[position]),
        usd_per_million_tokens=float(question.usd_per_million_tokens[position]),
    )
