"""Where a request runs, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from orchestrator.config.data_class import DataClass
from orchestrator.policy import grant
from orchestrator.policy.arrays import Bools, Floats
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.constraints.momentary import MOMENTARY, context_length, saturated
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.question import Question
from orchestrator.policy.scores import SCORES
from orchestrator.policy.view import View

NEVER = float("inf")
UNLESS_FULL = MOMENTARY[:-1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate and what became of it. The lowest score wins."""

    candidate: Candidate
    rejected_by: str | None
    detail: str
    score: float | None


@dataclass(eq=False)
class Decision:
    grant: Grant | None
    data_class: DataClass
    """The effective class: the highest of all labels."""
    policy_version: str
    question: Question | None
    """None for a model that the workload does not have."""
    passes: Bools | None = None
    total: Floats | None = None
    """The weighted sum of scores, where it passes."""
    suits: Bools | None = None
    """What passes or is merely full. All three None where nothing was left to look at."""

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every candidate, with why."""
        return _verdicts(self.question) if self.question is not None else ()

    def candidates_digest(self) -> str:
        """A hash over every candidate, what became of it and its score."""
        if self.question is None:
            return ""
        digest = blake2b(self.question.selection.digest, digest_size=16)
        if self.passes is not None and self.total is not None:
            digest.update(self.passes.tobytes() + self.total.tobytes())
        return digest.hexdigest()

    @cached_property
    def denied(self) -> str | None:
        """None with a grant; else `model_not_found`, `residency` (no place may ever take it),
        `saturated` (all that could take it is full), `context_length` or `no_capacity`."""
        if self.grant is not None:
            return None
        if self.question is None:
            return "model_not_found"
        if self.suits is None:
            return "residency"
        if self.suits.any():
            return "saturated"
        fits = context_length.feasible(self.question)
        return "no_capacity" if fits is None or fits.any() else "context_length"


def effective_data_class(facts: Facts, view: View) -> DataClass:
    """The highest of all labels; a state that nobody vouches for any more counts as restricted."""
    if facts.snapshot_age_s > view.catalogue.configuration.policy.snapshot_stale_s:
        return DataClass.RESTRICTED
    own = view.catalogue.workloads[facts.workload].data_class
    return max(own, facts.claimed, facts.session, facts.content)


def decide(facts: Facts, view: View) -> Decision:
    """The decision for one attempt of a request. The same arguments give the same decision.

    Candidates are the variants of the model on their pools. Of those that pass every constraint the
    one with the lowest weighted sum of scores is granted; of equals, the first by endpoint name.
    Raises KeyError for an unknown workload.
    """
    catalogue = view.catalogue
    data_class = effective_data_class(facts, view)
    if facts.model not in catalogue.workloads[facts.workload].models:
        return Decision(None, data_class, catalogue.version, None)
    selection = catalogue.selection(facts.workload, facts.model, data_class, facts.smaller_variant)
    question = Question(facts, selection, view)
    if not selection.candidates:
        return Decision(None, data_class, catalogue.version, question)

    suits = _suits(question)
    room = saturated.feasible(question)
    passes = suits if room is None else suits & room
    total = _total(question, catalogue.weights)
    total[~passes] = NEVER
    best = total.argmin()
    if not passes[best]:
        return Decision(None, data_class, catalogue.version, question, passes, total, suits)
    candidate = selection.candidates[best]
    key = grant.seal(
        candidate,
        facts.workload,
        data_class,
        catalogue.version,
        view.snapshot.version,
        view.snapshot.quotes.get(candidate.pool.name),
    )
    return Decision(key, data_class, catalogue.version, question, passes, total, suits)


def _suits(question: Question) -> Bools:
    suits: Bools | None = None
    for _, constraint in UNLESS_FULL:
        one = constraint.feasible(question)
        if one is not None:
            suits = one if suits is None else suits & one
    assert suits is not None, "whether a replica is ready is always asked"
    return suits


def _total(question: Question, weights: Iterable[tuple[str, float]]) -> Floats:
    total: Floats | None = None
    for name, weight in weights:
        score = SCORES[name].score(question, weight)
        if total is None:
            total = score
        elif score is not None:
            total += score
    assert total is not None, "latency is always scored"
    return total


def _verdicts(question: Question) -> tuple[Verdict, ...]:
    selection = question.selection
    verdicts = [Verdict(r.candidate, r.code, r.sentence, None) for r in selection.rejected]
    masks = [(code, c, c.feasible(question)) for code, c in MOMENTARY]
    weights = question.view.catalogue.weights
    parts = {name: SCORES[name].score(question, weight) for name, weight in weights}
    total = _total(question, weights)
    for position, candidate in enumerate(selection.candidates):
        for code, constraint, mask in masks:
            if mask is not None and not mask[position]:
                sentence = constraint.sentence(question, position)
                verdicts.append(Verdict(candidate, code, sentence, None))
                break
        else:
            shown = ", ".join(f"{n} {s[position]:.3f}" for n, s in parts.items() if s is not None)
            verdicts.append(Verdict(candidate, None, shown, float(total[position])))
    return tuple(sorted(verdicts, key=lambda v: v.candidate.endpoint))
