"""What must hold of a run, and what of it was seen. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.replay.observer import Sample
from orchestrator.replay.verdict import Check
from tests.benchmarks.chaos.records import FAILURES, Answer, Fault, Records, Request

READ_S = 1.0
"""Within which an answer of the feed has reached the controller."""
SAME = 0.001
"""By which a price may differ from what was said."""
ENDS = ("whole", "typed", "refused")
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Begin:
    """Of a burst."""

    workload: str
    at_s: float
    seen_s: float
    """Of the first sample that has it."""
    usd: float | None
    """The price that was believed then."""


def judge(records: Records, names: Sequence[str]) -> list[Check]:
    """`names`: of the faults that were to be seen."""
    return [
        _healthy_pools(records),
        _prices(records),
        _nothing_unowned(records),
        _nothing_left(records),
        _streams(records),
        _events(records),
        _not_in_vain(records, names),
    ]


def pool_of(request: Request, records: Records) -> str:
    """Where it was; what never began could have been served at home."""
    return request.pool or records.place.home_pool


def excuse(request: Request, records: Records) -> Fault | None:
    """The fault of its pool that it met."""
    pool = pool_of(request, records)
    for fault in records.faults:
        if fault.pool == pool and fault.overlaps(request.started_s, request.ended_s):
            return fault
    return None


def failed(request: Request) -> bool:
    return request.outcome != "whole" or request.connects > 1


def bursts(samples: Sequence[Sample], cloud_pool: str) -> Iterator[Begin]:
    """Each once, also where nobody looked at its first second."""
    known: set[tuple[str, float]] = set()
    for sample in samples:
        quote = sample.state["pools"][cloud_pool]["quote"]
        for workload, burst in sample.state["bursts"].items():
            key = workload, burst["since_s"]
            if burst["state"] == "bursting" and key not in known:
                known.add(key)
                usd = quote and quote["usd_per_gpu_hour"]
                yield Begin(workload, burst["since_s"], sample.at_s, usd)


def price_trouble(answers: Sequence[Answer], begin: Begin, max_age_s: float) -> str | None:
    """Why the burst should not have begun. A tick plans some time after it began, so that what was
    said meanwhile may or may not be known to it: one true answer among those is enough."""
    said = [a for a in answers if a.kind not in FAILURES]
    known_s = begin.at_s - READ_S
    possible = [a for a in said if a.at_s <= known_s][-1:]
    possible += [a for a in said if known_s < a.at_s <= begin.seen_s]
    if not possible:
        return "the feed had not said anything"
    if all(a.kind != "truth" for a in possible):
        return f"the newest answer was '{possible[0].kind}'"
    age_s = begin.at_s - max(a.at_s for a in possible if a.kind == "truth")
    if age_s > max_age_s + READ_S:
        return f"the newest answer was {age_s:.0f} s old"
    return None


def disbelieved(records: Records) -> list[str]:
    """Prices that were published and are none that the feed said in truth."""
    true = [a.usd for a in records.answers if a.kind == "truth" and a.usd is not None]
    quotes = [s.state["pools"][records.place.cloud_pool]["quote"] for s in records.samples]
    published = {q["usd_per_gpu_hour"] for q in quotes if q}
    return [
        f"{usd:g} USD was believed"
        for usd in sorted(published)
        if not any(abs(usd - said) <= SAME * said for said in true)
    ]


def wanted_in_vain(records: Records) -> int:
    """Samples in which only the price stood in the way of a burst."""
    workload = records.place.bursting
    return sum(
        f"quote of pool '{records.place.cloud_pool}' is stale" in burst["reason"]
        for s in records.samples
        if (burst := s.state["bursts"].get(workload))
    )


def silences(records: Records) -> dict[str, float]:
    """The longest time without a word of a controller, in seconds, by fault."""
    found: dict[str, float] = {}
    times = [s.at_s for s in records.samples]
    for before_s, after_s in pairwise(times):
        name = next((f.name for f in records.faults if f.overlaps(before_s, after_s)), "no fault")
        found[name] = max(found.get(name, 0), after_s - before_s)
    return found


def _healthy_pools(records: Records) -> Check:
    bad = [r for r in records.requests if failed(r)]
    guilty = [r for r in bad if excuse(r, records) is None]
    met = Counter(r.outcome for r in bad if excuse(r, records) is not None)
    evidence = f"{len(records.requests)} requests, {len(guilty)} failed"
    if met:
        apart = ", ".join(f"{n} {outcome}" for outcome, n in sorted(met.items()))
        evidence += f"; during faults of their own pool: {apart}"
    return Check(
        "No request of a healthy pool fails",
        bool(records.requests) and not guilty,
        _with(evidence, [f"{r.request_id} {r.outcome} {r.detail}" for r in guilty]),
    )


def _prices(records: Records) -> Check:
    begun = list(bursts(records.samples, records.place.cloud_pool))
    wrong = [
        f"{begin.workload}: {trouble}"
        for begin in begun
        if (trouble := price_trouble(records.answers, begin, records.place.max_age_s))
    ]
    wrong += disbelieved(records)
    lies = Counter(a.kind for a in records.answers if a.kind != "truth")
    said = ", ".join(f"{n} {kind}" for kind, n in sorted(lies.items())) or "no lie was told"
    evidence = f"{len(begun)} bursts began; {said}; {wanted_in_vain(records)} s refused for it"
    return Check("No burst begins on a bad price", not wrong, _with(evidence, wrong))


def _nothing_unowned(records: Records) -> Check:
    found = records.unowned
    evidence = "nobody looked" if found is None else _with(f"{len(found)} found", found)
    return Check("Nothing without an owner at the end", found == [], evidence)


def _nothing_left(records: Records) -> Check:
    found = records.left
    evidence = "nobody looked" if found is None else _with(f"{len(found)} processes", found)
    return Check("Nothing runs after 'down'", found == [], evidence)


def _streams(records: Records) -> Check:
    counts = Counter(r.outcome for r in records.requests)
    wrong = [
        f"{r.request_id} {r.outcome} {r.detail}" for r in records.requests if r.outcome not in ENDS
    ]
    wrong += [f"{r.request_id} has twice: {r.twice!r}" for r in records.requests if r.twice]
    if records.open_requests:
        wrong.append(f"{records.open_requests} requests hang")
    evidence = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    claim = "Every stream is whole or ends typed, and no text comes twice"
    return Check(claim, not wrong, _with(evidence, wrong))


def _events(records: Records) -> Check:
    lost = records.events_lost
    evidence = "nobody looked" if lost is None else f"{lost} missing"
    return Check("Every event is on disk, the full disk's too", lost == 0, evidence)


def _not_in_vain(records: Records, names: Sequence[str]) -> Check:
    """The faults happened and passed, and met what they were meant to meet."""
    missing = [
        f"'{name}' was not seen to pass"
        for name in names
        if not any(f.name == name and f.ended_s is not None for f in records.faults)
    ]
    missing += [f"'{f.name}' did not pass: {f.note}" for f in records.faults if f.ended_s is None]
    if not list(bursts(records.samples, records.place.cloud_pool)):
        missing.append("nobody burst")
    if any("price" in name for name in names) and not wanted_in_vain(records):
        missing.append("nobody wanted to burst while the price was bad")
    for pool in (records.place.home_pool, records.place.cloud_pool):
        if not any(r.pool == pool and r.outcome == "whole" for r in records.requests):
            missing.append(f"'{pool}' served nobody")
    done = Counter(f.name for f in records.faults)
    evidence = ", ".join(f"{n} × {name}" for name, n in sorted(done.items()))
    return Check("The faults came, and passed", not missing, _with(evidence, missing))


def _with(evidence: str, wrong: Sequence[str]) -> str:
    more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return ". ".join([evidence, *wrong[:SHOWN], *more])
