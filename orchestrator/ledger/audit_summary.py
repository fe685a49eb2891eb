"""Where the requests of a workload went, by data class: the answer that an auditor asks for."""

from collections import Counter
from dataclasses import dataclass, field

from orchestrator.ledger.audit import DecisionRow, GapRow, Row


@dataclass(slots=True)
class Placements:
    """Of one data class. A request is sent once per attempt."""

    requests: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    """Attempts, by zone."""
    denied: Counter[str] = field(default_factory=Counter)
    """Decisions that sent nothing, by code."""

    def __str__(self) -> str:
        parts = [f"{self.requests:,} request{'' if self.requests == 1 else 's'}"]
        attempts = [f"{count:,} in zone {zone}" for zone, count in sorted(self.sent.items())]
        if not attempts:
            parts.append("none was sent anywhere")
        elif len(attempts) == 1:
            parts.append(f"all in zone {next(iter(self.sent))}")
        else:
            parts.append(f"attempts: {', '.join(attempts)}")
        parts += [f"{count:,} denied ({code})" for code, count in sorted(self.denied.items())]
        return "; ".join(parts)


class Summary:
    """Of one workload, from `since_s` to before `until_s`, in seconds since the epoch."""

    def __init__(
        self, workload: str, since_s: float, until_s: float, data_class: str | None = None
    ) -> None:
        """`data_class` is the label of the only class to look at; None: all."""
        self._workload, self._data_class = workload, data_class
        self._since_s, self._until_s = since_s, until_s
        self.by_class: dict[str, Placements] = {}
        self.workloads: set[str] = set()
        """Everyone for whom something was decided in that time."""
        self.lost = 0
        """Rows of that time, of any workload, that could not be written."""

    def takes(self, row: Row) -> bool:
        """Counts the row; whether it is a decision that was asked for."""
        if isinstance(row, GapRow):
            if row.since_s < self._until_s and row.time_s >= self._since_s:
                self.lost += row.lost
            return False
        if not isinstance(row, DecisionRow) or not self._since_s <= row.time_s < self._until_s:
            return False
        self.workloads.add(row.workload)
        if row.workload != self._workload or self._data_class not in (None, row.data_class):
            return False
        placements = self.by_class.setdefault(row.data_class, Placements())
        placements.requests += row.attempt == 1
        if row.denied is not None:
            placements.denied[row.denied] += 1
        else:
            placements.sent[row.zone or "unknown"] += 1
        return True
