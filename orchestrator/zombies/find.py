"""From a sweep to findings: what is suspicious for long enough, whose it is, what it has cost."""

from collections.abc import Iterable, Mapping
from itertools import chain

from orchestrator.policy.catalogue import Catalogue
from orchestrator.policy.snapshot import Quote
from orchestrator.signals.reading import heard
from orchestrator.zombies.adapters import adapters
from orchestrator.zombies.finding import Finding, Kind, Look, Note, Notes, Suspect, key
from orchestrator.zombies.ghosts import ghosts
from orchestrator.zombies.idle import idle
from orchestrator.zombies.orphans import orphans
from orchestrator.zombies.pending import pending
from orchestrator.zombies.sweep import Sweep

DETECTORS = (idle, ghosts, orphans, pending, adapters)
SWEEPS_HEARD = 3
"""What was heard so many sweeps ago is not known any more."""


def find(
    sweep: Sweep, previous: Mapping[str, Note], catalogue: Catalogue, now_s: float
) -> tuple[list[Finding], Notes]:
    """The zombies, the longest first, and the notes for the next sweep.

    A suspicion must be confirmed by every sweep, by readings that are fresh; a single look that
    speaks for the suspect, or a gap, begins it anew.
    """
    max_age_s = SWEEPS_HEARD * catalogue.configuration.zombies.sweep_s
    looks = chain.from_iterable(detect(sweep, catalogue, max_age_s, now_s) for detect in DETECTORS)
    # Unknown is neither well nor suspicious: such a note waits, for as long as it may.
    notes = {k: n for k, n in previous.items() if heard(n.seen_s, max_age_s, now_s)}
    standing: list[tuple[Look, Suspect]] = []
    for look in looks:
        k = key(look.kind, look.subject)
        before = notes.pop(k, None)
        if look.suspect is None:
            continue
        notes[k] = note = _noted(look.suspect, before, sweep.quotes, now_s)
        if now_s - note.since_s >= look.suspect.after_s:
            standing.append((look, look.suspect))
    standing.sort(key=lambda s: (notes[key(s[0].kind, s[0].subject)].since_s, s[0].subject))
    findings = []
    for look, suspect in _within_room(standing):
        k = key(look.kind, look.subject)
        notes[k] = note = notes[k].model_copy(
            update={"reported_s": now_s if notes[k].reported_s is None else notes[k].reported_s}
        )
        findings.append(_finding(look, suspect, note, catalogue, now_s))
    return findings, notes


def _noted(
    suspect: Suspect, before: Note | None, quotes: Mapping[str, Quote], now_s: float
) -> Note:
    if before is None or before.mark != suspect.mark:
        before = Note(since_s=now_s, seen_s=now_s, mark=suspect.mark)
    # Of several possible prices the lowest: at least so much was paid.
    prices = [quotes[pool].usd_per_gpu_hour for pool in suspect.pools if pool in quotes]
    hours = (now_s - before.seen_s) / 3600
    usd = before.usd
    if prices or not suspect.gpus:
        usd = (before.usd or 0) + suspect.gpus * hours * min(prices, default=0)
    return before.model_copy(update={"seen_s": now_s, "usd": usd})


def _within_room(standing: Iterable[tuple[Look, Suspect]]) -> Iterable[tuple[Look, Suspect]]:
    """Of an endpoint's idle replicas only as many as were not declared, the longest idle first."""
    taken: dict[str | None, int] = {}
    for look, suspect in standing:
        if look.kind is Kind.IDLE and suspect.room is not None:
            already = taken.get(suspect.endpoint, 0)
            if already + suspect.replicas > suspect.room:
                continue
            taken[suspect.endpoint] = already + suspect.replicas
        yield look, suspect


def _finding(
    look: Look, suspect: Suspect, note: Note, catalogue: Catalogue, now_s: float
) -> Finding:
    owners = {catalogue.pools[pool].owner for pool in suspect.pools} - {None}
    return Finding(
        kind=look.kind,
        subject=look.subject,
        cluster=suspect.cluster,
        pool=suspect.pools[0] if len(suspect.pools) == 1 else None,
        endpoint=suspect.endpoint,
        replicas=suspect.replicas,
        owner=", ".join(sorted(filter(None, owners))) or None,
        workloads=users(catalogue, suspect.pools),
        since_s=note.since_s,
        reported_s=note.reported_s if note.reported_s is not None else now_s,
        cost_usd=note.usd,
        evidence=f"{suspect.evidence}, for {_duration(now_s - note.since_s)}",
        mend=suspect.mend,
        doubt=suspect.doubt,
    )


def users(catalogue: Catalogue, pools: Iterable[str]) -> list[str]:
    """The workloads whose requests may run in any of these pools."""
    wanted = set(pools)
    return [
        name
        for name, spec in catalogue.workloads.items()
        if any(
            candidate.pool.name in wanted
            for model in spec.models
            for candidate in catalogue.selection(name, model, spec.data_class, False).candidates
        )
    ]


def _duration(seconds: float) -> str:
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
