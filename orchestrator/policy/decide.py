"""Where a request runs, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from orchestrator.config.data_class import DataClass
from orchestrator.policy import grant
from orchestrator.policy.arrays import Bools, Floats
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.constraints.lasting import LASTING
from orchestrator.policy.constraints.momentary import MOMENTARY
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.question import Question
from orchestrator.policy.scores import SCORES
from orchestrator.policy.view import View

NEVER = float("inf")
LASTING_CODES = {code for code, _ in LASTING}


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
    """The weighted sum of scores, where it passes. Both None where nothing was left to look at."""

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
        `context_length` or `no_capacity`."""
        if self.grant is not None:
            return None
        if self.question is None:
            return "model_not_found"
        codes = {v.rejected_by for v in self.verdicts}
        if codes <= LASTING_CODES:
            return "residency"
        if codes <= LASTING_CODES | {"context_length"}:
            return "context_length"
        return "no_capacity"


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

    passes = _passes(question)
    total = _total(question, catalogue.weights)
    total[~passes] = NEVER
    best = total.argmin()
    if not passes[best]:
        return Decision(None, data_class, catalogue.version, question, passes, total)
    candidate = selection.candidates[best]
    key = grant.seal(
        candidate,
        facts.workload,
        data_class,
        catalogue.version,
        view.snapshot.version,
        view.snapshot.quotes.get(candidate.pool.name),
    )
    return Decision(key, data_class, catalogue.version, question, passes, total)


def _passes(question: Question) -> Bools:
    passes: Bools | None = None
    for _, constraint in MOMENTARY:
        one = constraint.feasible(question)
        if one is not None:
            passes = one if passes is None else passes & one
    assert passes is not None, "whether a replica is ready is always asked"
    return passes


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
