"""What a change of the rules would change: who moves where, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.config.data_class import DataClass
from orchestrator.config.probes import Fleet
from orchestrator.config.spec import Policy
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.situation import affordable_usd_per_gpu_hour, imagine
from orchestrator.policy.view import View

Views = Mapping[tuple[str, str], View]
"""By workload, and by the name of a situation that its requests may meet."""


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """Where a request runs, or why it does not."""

    zone: str = ""
    pool: str = ""
    variant: str = ""
    denied: str = ""

    def __str__(self) -> str:
        return f"denied: {self.denied}" if self.denied else f"{self.pool}/{self.variant}"


@dataclass(slots=True)
class Group:
    """The requests of one workload for one model, before and after."""

    workload: str
    model: str
    requests: int = 0
    before: Counter[Outcome] = field(default_factory=Counter)
    after: Counter[Outcome] = field(default_factory=Counter)
    classes_before: Counter[DataClass] = field(default_factory=Counter)
    """By the effective class; requests of a workload that is not there have none."""
    classes_after: Counter[DataClass] = field(default_factory=Counter)


@dataclass(slots=True)
class Move:
    """Requests that would go elsewhere, with the rule that moves them."""

    workload: str
    model: str
    before: Outcome
    after: Outcome
    rule: str
    """The constraint that now rejects where they ran; `score` where none does; else what became of
    the place."""
    sentence: str
    """Of the first of them."""
    requests: int = 0
    situations: list[str] = field(default_factory=list)
    data_classes: set[DataClass] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Reach:
    """Data that may come to a zone to which no data of the workload could come before that was as
    sensitive."""

    workload: str
    zone: str
    jurisdiction: str
    data_class: DataClass
    """The highest."""


@dataclass(frozen=True, slots=True)
class Plan:
    groups: tuple[Group, ...]
    moves: tuple[Move, ...]
    """The largest first."""
    reaches: tuple[Reach, ...]
    unmarked: tuple[tuple[str, str], ...]
    """Workloads, and markers that raise the class of their requests no more."""
    loosened: tuple[str, ...]
    """Kinds of content that raise the class of a request less than before."""


def plan(
    requests: Iterable[Facts], before: tuple[Catalogue, Views], after: tuple[Catalogue, Views]
) -> Plan:
    """Decides each request in every situation of its workload, under both rules."""
    groups: dict[tuple[str, str], Group] = {}
    moves: dict[tuple[str, ...], Move] = {}
    names: dict[str, list[str]] = {}
    for workload, name in before[1]:
        names.setdefault(workload, []).append(name)
    for facts in requests:
        key = (facts.workload, facts.model)
        group = groups.setdefault(key, Group(*key))
        for name in names[facts.workload]:
            old = _decide(facts, before[1][facts.workload, name])
            new = _decide(facts, after[1][facts.workload, name])
            was, will = _outcome(old), _outcome(new)
            group.requests += 1
            group.before[was] += 1
            group.after[will] += 1
            if old:
                group.classes_before[old.data_class] += 1
            if new:
                group.classes_after[new.data_class] += 1
            if was != will:
                rule, sentence = _reason(facts, old, new)
                what = (*key, str(was), was.zone, str(will), will.zone, rule)
                move = moves.setdefault(what, Move(*key, was, will, rule, sentence))
                move.requests += 1
                if name not in move.situations:
                    move.situations.append(name)
                move.data_classes |= {d.data_class for d in (old, new) if d}
    return Plan(
        tuple(groups[key] for key in sorted(groups)),
        tuple(sorted(moves.values(), key=lambda m: -m.requests)),
        reaches(before[0], after[0]),
        tuple(
            (name, marker)
            for name, workload in after[0].workloads.items()
            if name in before[0].workloads
            for marker in before[0].workloads[name].markers
            if marker not in workload.markers
        ),
        _loosened(before[0].configuration.policy, after[0].configuration.policy),
    )


def _loosened(before: Policy, after: Policy) -> tuple[str, ...]:
    kinds = ("personal_data", "secrets", "markers", "unreadable")
    old, new = before.classifier, after.classifier
    return tuple(kind for kind in kinds if getattr(new, kind) < getattr(old, kind))


def reaches(before: Catalogue, after: Catalogue) -> tuple[Reach, ...]:
    """Whatever the state of the fleet, and whatever is asked: it follows from the rules alone."""
    old, new = _highest(before), _highest(after)
    return tuple(
        Reach(*place, data_class)
        for place, data_class in sorted(new.items())
        if data_class > old.get(place, -1)
    )


def situations(
    before: Catalogue, after: Catalogue, usd_per_gpu_hour: Mapping[str, float]
) -> tuple[Views, Views]:
    """The same situations under both rules: at rest, all ready, bursting to each pool that either
    allows, home down. Prices are those that feeds give, by pool."""
    prices = dict(usd_per_gpu_hour)
    for catalogue in (before, after):
        for pool in catalogue.pools:
            prices.setdefault(pool, affordable_usd_per_gpu_hour(catalogue, pool))
    views: tuple[dict[tuple[str, str], View], ...] = ({}, {})
    for workload in _both(before.workloads, after.workloads):
        fleets = {"at rest": Fleet(), "all ready": Fleet(situation="all_ready")}
        for pool in _both(*(_burst_pools(c, workload) for c in (before, after))):
            fleets[f"bursting to {pool}"] = Fleet(bursting={workload: pool})
        fleets["home down"] = _home_down(
            before if workload in before.workloads else after, workload
        )
        for name, fleet in fleets.items():
            for side, catalogue in zip(views, (before, after), strict=True):
                snapshot = imagine(catalogue, fleet, workload, prices)
                side[workload, name] = View(catalogue, snapshot)
    return views[0], views[1]


def _home_down(catalogue: Catalogue, workload: str) -> Fleet:
    """By the pools that these rules call home: what the others call home must not hide a move."""
    home = sorted({c.pool.name for c in catalogue.home(workload)})
    away = catalogue.burst_pools(workload)
    return Fleet(situation="all_ready", down=home, bursting={workload: away[0]} if away else {})


def typical_requests(before: Catalogue, after: Catalogue) -> list[Facts]:
    """Of every workload for each of its models, with every label, short and as long as each
    variant's context."""
    made = []
    for workload in _both(before.workloads, after.workloads):
        for model in _both(*(_models(c, workload) for c in (before, after))):
            lengths = {
                candidate.variant.max_model_len
                for catalogue in (before, after)
                for candidate in catalogue.by_model.get(model, ())
            }
            for claimed in DataClass:
                for max_tokens in (0, *sorted(lengths)):
                    made.append(Facts(workload, model, claimed=claimed, max_tokens=max_tokens))
    return made


def _decide(facts: Facts, view: View) -> Decision | None:
    """None where the workload is not configured."""
    return decide(facts, view) if facts.workload in view.catalogue.workloads else None


def _outcome(decision: Decision | None) -> Outcome:
    if decision is None:
        return Outcome(denied="no_such_workload")
    if decision.grant is None:
        return Outcome(denied=decision.denied or "")
    candidate = decision.grant.candidate
    return Outcome(candidate.zone.name, candidate.pool.name, candidate.variant.name)


def _reason(facts: Facts, old: Decision | None, new: Decision | None) -> tuple[str, str]:
    if old is None or new is None:
        what = "new" if old is None else "no longer configured"
        return "workload", f"workload '{facts.workload}' is {what}"
    if old.question is None or new.question is None:
        what = "may use" if old.question is None else "may no longer use"
        return "models", f"workload '{facts.workload}' {what} '{facts.model}'"
    if old.grant is not None:
        return _why_not(old.grant.candidate.endpoint, new, "no longer configured for")
    if new.grant is not None:
        rule, sentence = _why_not(new.grant.candidate.endpoint, old, "new for")
        return rule, f"until now: {sentence}" if rule != "candidate" else sentence
    return "denied", f"denied: {new.denied}, until now denied: {old.denied}"


def _why_not(endpoint: str, decision: Decision, missing: str) -> tuple[str, str]:
    """Why the endpoint is not the choice of this decision."""
    for verdict in decision.verdicts:
        if verdict.candidate.endpoint == endpoint:
            if verdict.rejected_by is not None:
                return verdict.rejected_by, verdict.detail
            grant = decision.grant
            assert grant is not None, "what is feasible is granted"
            if grant.candidate.endpoint == endpoint:
                return "zone", f"'{endpoint}' lies in zone '{grant.candidate.zone.name}' now"
            best = min(v.score for v in decision.verdicts if v.score is not None)
            if verdict.score == best:
                return "score", f"{endpoint} scores no better than {grant.candidate.endpoint}"
            return "score", (
                f"{endpoint} scores {verdict.score:.3f} ({verdict.detail}), "
                f"{grant.candidate.endpoint} {best:.3f}"
            )
    model = decision.question.facts.model if decision.question else ""
    return "candidate", f"'{endpoint}' is {missing} model '{model}'"


def _highest(catalogue: Catalogue) -> dict[tuple[str, str, str], DataClass]:
    """By workload, zone and its jurisdiction: the highest class of data that may come there."""
    found: dict[tuple[str, str, str], DataClass] = {}
    for name, workload in catalogue.workloads.items():
        for data_class in DataClass:
            if data_class < workload.data_class:
                continue
            for model in workload.models:
                selection = catalogue.selection(name, model, data_class, smaller_variant=True)
                for candidate in selection.candidates:
                    zone = candidate.zone
                    found[name, zone.name, zone.jurisdiction] = data_class
    return found


def _burst_pools(catalogue: Catalogue, workload: str) -> Iterable[str]:
    return catalogue.burst_pools(workload) if workload in catalogue.workloads else ()


def _models(catalogue: Catalogue, workload: str) -> Iterable[str]:
    return catalogue.workloads[workload].models if workload in catalogue.workloads else ()


def _both(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """Without repetition, in this order."""
    return list(dict.fromkeys((*before, *after)))
