"""Probes: whether the rules place requests as their owners expect."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.config.data_class import DataClass
from orchestrator.config.inherit import Place
from orchestrator.config.load import Loaded, Problem
from orchestrator.config.probes import PlacedProbe, load_probes
from orchestrator.policy.candidate import Candidate
from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.constraints.lasting import LASTING
from orchestrator.policy.constraints.momentary import MOMENTARY
from orchestrator.policy.decide import Decision, decide
from orchestrator.policy.facts import Facts
from orchestrator.policy.situation import imagine
from orchestrator.policy.view import View

Classify = Callable[[str, str], DataClass]
"""The class of a text that a workload sends."""

CODES = tuple(code for code, _ in (*LASTING, *MOMENTARY))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one probe."""

    name: str
    problems: tuple[Problem, ...] = ()
    """Empty: it passed, if it was run."""
    not_run: str | None = None
    """Why it was not: it neither passed nor failed."""


def run_probes(directory: Path, loaded: Loaded, classify: Classify | None = None) -> list[Result]:
    """All probes of the files in the directory. Raises ConfigurationError for a broken file."""
    catalogue = Catalogue(loaded.configuration, loaded.version)
    return [
        _run(placed, catalogue, classify) for placed in load_probes(directory, loaded.configuration)
    ]


def failures(directory: Path, loaded: Loaded, classify: Classify | None = None) -> list[Problem]:
    """What the probes find wrong: the check of a `PolicyStore`."""
    return [p for result in run_probes(directory, loaded, classify) for p in result.problems]


def _run(placed: PlacedProbe, catalogue: Catalogue, classify: Classify | None) -> Result:
    probe = placed.probe
    request = probe.request
    content = DataClass.PUBLIC
    if request.content is not None:
        if classify is None:
            return Result(probe.name, not_run="its content needs a classifier, and none is here")
        content = classify(request.workload, request.content)
    facts = Facts(
        workload=request.workload,
        model=request.model,
        claimed=request.data_class,
        content=content,
        max_tokens=request.max_tokens,
    )
    snapshot = imagine(catalogue, probe.fleet, request.workload)
    decision = decide(facts, View(catalogue, snapshot))
    findings = [*_placement(placed, decision), *_rules(placed, decision)]
    return Result(probe.name, tuple(placed.problem(*finding) for finding in findings))


def _placement(placed: PlacedProbe, decision: Decision) -> Iterator[tuple[Place, str]]:
    """Whether it runs where it should."""
    expect = placed.probe.expect
    chosen = decision.grant.candidate if decision.grant else None
    if expect.denied is not None and decision.denied != expect.denied:
        yield (
            ("expect", "denied"),
            f"expected denied: {expect.denied}, got {_got(decision, _zone)} "
            f"({_why(decision, lambda c: chosen in (None, c))})",
        )
    wanted: list[tuple[str, list[str] | None, Callable[[Candidate], str]]] = [
        ("zone", expect.zone, _zone),
        ("pool", [expect.pool] if expect.pool else None, _pool),
        ("variant", [expect.variant] if expect.variant else None, _variant),
    ]
    for kind, names, name_of in wanted:
        if names is not None and (chosen is None or name_of(chosen) not in names):
            there = partial(_is_among, names, name_of)
            yield (
                ("expect", kind),
                f"expected {kind} {' or '.join(names)}, got {_got(decision, name_of)} "
                f"({_why(decision, there)})",
            )


def _rules(placed: PlacedProbe, decision: Decision) -> Iterator[tuple[Place, str]]:
    """Whether it is refused elsewhere, and why."""
    expect = placed.probe.expect
    if expect.data_class is not None and decision.data_class is not expect.data_class:
        yield (
            ("expect", "data_class"),
            f"expected {expect.data_class.label} data, got {decision.data_class.label}",
        )
    for pool, code in expect.rejected.items():
        place: Place = ("expect", "rejected", pool)
        if code not in CODES:
            yield place, f"no rule is called '{code}'; there are: {', '.join(CODES)}"
            continue
        there = [v for v in decision.verdicts if v.candidate.pool.name == pool]
        if not there:
            yield place, f"pool '{pool}' runs nothing of this model"
        for verdict in there:
            if verdict.rejected_by != code:
                endpoint, got = verdict.candidate.endpoint, verdict.rejected_by or "feasible"
                yield (
                    place,
                    f"expected {endpoint} rejected by {code}, got {got} ({verdict.detail})",
                )
    for zone in expect.never_zones:
        ever = _ever_in(zone, decision)
        if ever:
            yield (
                ("expect", "never_zones"),
                f"expected never in zone {zone}, but no lasting rule keeps "
                f"{decision.data_class.label} data from {ever[0].endpoint}",
            )


def _ever_in(zone: str, decision: Decision) -> list[Candidate]:
    """Where it could run in that zone with some state of the fleet."""
    question = decision.question
    if question is None:
        return []
    facts = question.facts
    selection = question.view.catalogue.selection(
        facts.workload, facts.model, decision.data_class, smaller_variant=True
    )
    return [c for c in selection.candidates if c.zone.name == zone]


def _got(decision: Decision, name_of: Callable[[Candidate], str]) -> str:
    if decision.grant is None:
        return f"denied: {decision.denied}"
    return name_of(decision.grant.candidate)


def _why(decision: Decision, there: Callable[[Candidate], bool]) -> str:
    """What the rules say of the first such candidate."""
    if decision.question is None:
        return "the workload does not have this model"
    for verdict in decision.verdicts:
        if there(verdict.candidate):
            if verdict.score is None:
                return verdict.detail
            return f"{verdict.candidate.endpoint} scores {verdict.score:.3f}: {verdict.detail}"
    return "the model has nothing there"


def _is_among(names: list[str], name_of: Callable[[Candidate], str], candidate: Candidate) -> bool:
    return name_of(candidate) in names


def _zone(candidate: Candidate) -> str:
    return candidate.zone.name


def _pool(candidate: Candidate) -> str:
    return candidate.pool.name


def _variant(candidate: Candidate) -> str:
    return candidate.variant.name
