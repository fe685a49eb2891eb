"""Where a request runs, and why."""

from dataclasses import dataclass

from orchestrator.config.data_class import DataClass
from orchestrator.policy import grant
from orchestrator.policy.catalogue import Candidate, Catalogue
from orchestrator.policy.constraints import ALL, RESIDENCY
from orchestrator.policy.facts import Facts
from orchestrator.policy.grant import Grant
from orchestrator.policy.question import Question
from orchestrator.policy.scores import latency, price
from orchestrator.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate and what became of it. The lowest score wins."""

    candidate: Candidate
    rejected_by: str | None
    detail: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    grant: Grant | None
    denied: str | None
    """None with a grant; else `model_not_found`, `residency`, `context_length` or `no_capacity`."""
    data_class: DataClass
    policy_version: str
    verdicts: tuple[Verdict, ...]


def effective_data_class(facts: Facts, catalogue: Catalogue, snapshot_stale_s: float) -> DataClass:
    """The highest of all labels; a state that nobody vouches for any more counts as restricted."""
    if facts.snapshot_age_s > snapshot_stale_s:
        return DataClass.RESTRICTED
    return max(catalogue.workloads[facts.workload].data_class, facts.data_class)


def decide(facts: Facts, catalogue: Catalogue, snapshot: Snapshot) -> Decision:
    """The decision for one attempt of a request. The same arguments give the same decision.

    Candidates are the variants of the model on their pools. Those that pass every constraint are
    ranked by weighted score, then by endpoint name. Raises KeyError for an unknown workload.
    """
    workload = catalogue.workloads[facts.workload]
    policy = catalogue.configuration.policy
    data_class = effective_data_class(facts, catalogue, policy.snapshot_stale_s)
    if facts.model not in workload.models:
        return Decision(None, "model_not_found", data_class, catalogue.version, ())

    verdicts = []
    best: Verdict | None = None
    for candidate in catalogue.by_model[facts.model]:
        question = Question(facts, workload, data_class, candidate, snapshot)
        verdict = _judge(question, policy.weights.latency, policy.weights.price)
        verdicts.append(verdict)
        if verdict.score is not None and (best is None or _rank(verdict) < _rank(best)):
            best = verdict

    if best is None:
        return Decision(None, _denial(verdicts), data_class, catalogue.version, tuple(verdicts))
    key = grant.seal(
        best.candidate,
        facts.workload,
        data_class,
        catalogue.version,
        snapshot.version,
        snapshot.quotes.get(best.candidate.pool.name),
    )
    return Decision(key, None, data_class, catalogue.version, tuple(verdicts))


def _judge(question: Question, latency_weight: float, price_weight: float) -> Verdict:
    for code, check in ALL:
        detail = check(question)
        if detail is not None:
            return Verdict(question.candidate, code, detail, None)
    wait, cost = latency.score(question), price.score(question)
    return Verdict(
        question.candidate,
        None,
        f"latency {wait:.3f}, price {cost:.3f}",
        latency_weight * wait + price_weight * cost,
    )


def _rank(verdict: Verdict) -> tuple[float, str]:
    assert verdict.score is not None
    return verdict.score, verdict.candidate.endpoint


def _denial(verdicts: list[Verdict]) -> str:
    codes = {v.rejected_by for v in verdicts}
    if codes <= RESIDENCY:
        return "residency"
    if codes <= RESIDENCY | {"context_length"}:
        return "context_length"
    return "no_capacity"
