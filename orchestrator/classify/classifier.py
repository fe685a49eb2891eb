"""The class of a request, from everything that its body says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from orchestrator.classify.budget import Deadline, OutOfTime, OwnTime
from orchestrator.classify.findings import Finding, FindingType, Kind, without_overlaps
from orchestrator.classify.normalize import normalize
from orchestrator.classify.scanner import Scanner
from orchestrator.classify.walk import strings
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec import ClassifierSpec

_CHUNK = 16 * 1024
"""Characters looked at between two looks at the clock."""
_OVERLAP = 512
"""Characters that two chunks of a long string share, so that a cut hides nothing shorter."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a request's content raises its class to. Holds no content."""

    data_class: DataClass
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Findings by type; the types are those of `FindingType`. In strings of more than 16,000
    characters a few may be counted twice."""
    failed: str | None = None
    """`timeout` or `error` when not everything was read; the class is restricted then."""


_NOTHING = Classification(DataClass.PUBLIC)


class _Tally:
    """What was found so far."""

    def __init__(self) -> None:
        self.kinds: set[Kind] = set()
        self.counts: dict[FindingType, int] = {}

    def add(self, findings: list[Finding]) -> None:
        """Every finding raises the class, also where another is the one that counts."""
        if not findings:
            return
        self.kinds.update(finding.type.kind for finding in findings)
        for finding in without_overlaps(findings):
            self.counts[finding.type] = self.counts.get(finding.type, 0) + 1


class Classifier:
    """Compiled once, for all threads.

    `markers_by_workload` maps a workload's name to its phrases. Raises ValueError for a phrase
    without a letter or digit.
    """

    def __init__(
        self, spec: ClassifierSpec, markers_by_workload: Mapping[str, Sequence[str]]
    ) -> None:
        self._budget_s = spec.budget_s
        self._class_of = {
            Kind.PERSONAL_DATA: spec.personal_data,
            Kind.SECRETS: spec.secrets,
            Kind.MARKERS: spec.markers,
            Kind.UNREADABLE: spec.unreadable,
        }
        self._default = Scanner()
        self._scanners = {
            workload: Scanner(phrases)
            for workload, phrases in markers_by_workload.items()
            if phrases
        }

    def classify(
        self, workload: str, body: object, clock: Callable[[], float] | None = None
    ) -> Classification:
        """Never raises. The body is JSON as parsed; every string in it counts, keys included.
        `clock`: that the budget is measured by, else the thread's own time."""
        tally = _Tally()
        failed = None
        try:
            budget_s = self._budget_s
            deadline = OwnTime(budget_s) if clock is None else Deadline(clock, budget_s)
            self._read(workload, body, deadline, tally)
        except OutOfTime:
            failed = "timeout"
        except Exception:
            # Its text may hold content, and nobody needs it: what failed is restricted.
            failed = "error"
        if not tally.kinds and failed is None:
            return _NOTHING
        classes = [self._class_of[kind] for kind in tally.kinds]
        return Classification(
            DataClass.RESTRICTED if failed else max(classes, default=DataClass.PUBLIC),
            MappingProxyType({type.value: count for type, count in tally.counts.items()}),
            failed,
        )

    def _read(self, workload: str, body: object, deadline: Deadline, tally: _Tally) -> None:
        scanner = self._scanners.get(workload, self._default)
        for chunk in _chunks(strings(body, deadline.check), tally):
            deadline.check()
            data = normalize(chunk).encode("utf-8", "replace")
            tally.add(scanner.scan(data, deadline.check))


def _chunks(pieces: Iterator[str | None], tally: _Tally) -> Iterator[str]:
    """Short strings together, long ones in parts; counts what cannot be read."""
    batch: list[str] = []
    size = 0
    for piece in pieces:
        if piece is None:
            tally.add([Finding(FindingType.UNREADABLE, 0, 0)])
        elif len(piece) > _CHUNK:
            for start in range(0, len(piece) - _OVERLAP, _CHUNK - _OVERLAP):
                yield _without_nul(piece[start : start + _CHUNK])
        else:
            batch.append(piece)
            size += len(piece) + 1
            if size > _CHUNK:
                yield _joined(batch)
                batch, size = [], 0
    if batch:
        yield _joined(batch)


def _joined(strings: list[str]) -> str:
    joined = "\0".join(strings)
    if joined.count("\0") < len(strings):
        return joined
    return "\0".join(map(_without_nul, strings))


def _without_nul(text: str) -> str:
    # To look for one costs a hundredth of replacing none.
    return text.replace("\0", "") if "\0" in text else text
