"""The class of a request, from everything that its body says."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from orchestrator.classify.budget import Deadline, OutOfTime
from orchestrator.classify.findings import FindingType, Kind
from orchestrator.classify.normalize import normalize
from orchestrator.classify.scanner import Scanner
from orchestrator.classify.walk import strings
from orchestrator.config.data_class import DataClass
from orchestrator.config.spec.classifier import Classifier as ClassifierSpec

_CHUNK = 16 * 1024
"""Characters looked at between two looks at the clock."""
_OVERLAP = 512
"""Characters that two chunks of a long string share, so that a cut hides nothing shorter."""
_SEEN = _OVERLAP // 2
"""What ends before here in the later chunk was found in the earlier one, with all around it."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What a request's content raises its class to. Holds no content."""

    data_class: DataClass
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Findings by type; the types are those of `FindingType`."""
    failed: str | None = None
    """`timeout` or `error` when not everything was read; the class is restricted then."""


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
        self, workload: str, body: object, clock: Callable[[], float] = time.perf_counter
    ) -> Classification:
        """Never raises. The body is JSON as parsed; every string in it counts, keys included."""
        counts: Counter[FindingType] = Counter()
        failed = None
        try:
            self._count(workload, body, Deadline(clock, self._budget_s), counts)
        except OutOfTime:
            failed = "timeout"
        except Exception:
            # Its text may hold content, and nobody needs it: what failed is restricted.
            failed = "error"
        classes = [self._class_of[type.kind] for type in counts]
        return Classification(
            DataClass.RESTRICTED if failed else max(classes, default=DataClass.PUBLIC),
            MappingProxyType({type.value: count for type, count in counts.items()}),
            failed,
        )

    def _count(
        self, workload: str, body: object, deadline: Deadline, counts: Counter[FindingType]
    ) -> None:
        scanner = self._scanners.get(workload, self._default)
        for chunk, seen in _chunks(strings(body, deadline.check), counts):
            deadline.check()
            data = normalize(chunk).encode("utf-8", "replace")
            seen_bytes = len(normalize(chunk[:seen]).encode("utf-8", "replace")) if seen else 0
            for finding in scanner.scan(data, deadline.check):
                if finding.end > seen_bytes:
                    counts[finding.type] += 1


def _chunks(
    pieces: Iterator[str | None], counts: Counter[FindingType]
) -> Iterator[tuple[str, int]]:
    """Short strings together, long ones in parts, each with how much of it was seen before."""
    batch: list[str] = []
    size = 0
    for piece in pieces:
        if piece is None:
            counts[FindingType.UNREADABLE] += 1
        elif len(piece) > _CHUNK:
            for start in range(0, len(piece) - _OVERLAP, _CHUNK - _OVERLAP):
                part = piece[start : start + _CHUNK]
                yield _without_nul(part), _SEEN if start else 0
        else:
            batch.append(piece)
            size += len(piece) + 1
            if size > _CHUNK:
                yield _joined(batch), 0
                batch, size = [], 0
    if batch:
        yield _joined(batch), 0


def _without_nul(text: str) -> str:
    return text.replace("\0", "")


def _joined(strings: list[str]) -> str:
    text = "\0".join(strings)
    if text.count("\0") >= len(strings):
        text = "\0".join(map(_without_nul, strings))
    return text
