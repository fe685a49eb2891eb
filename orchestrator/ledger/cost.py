"""What capacity costs, by pool and by the workload that it was for."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel


class Costs(BaseModel):
    """Dollars since the start, and per workload on burst pools since midnight UTC."""

    by_pool: dict[str, float] = {}
    by_workload: dict[str, float] = {}
    day: str = ""
    burst_today_by_workload: dict[str, float] = {}

    def add(
        self,
        pool: str,
        usd: float,
        tokens: Mapping[str, int],
        bursting: list[str],
        now_s: float,
    ) -> None:
        """Splits the cost of a pool over one tick.

        By tokens between those who used it; what a burst pool costs without serving goes in equal
        parts to the workloads that `bursting` names, whose burst keeps it. An idle home pool's cost
        is nobody's. It counts against the budgets of those who burst (or pay by the token), and of
        nobody who is at home there.
        """
        day = _day(now_s)
        if day != self.day:
            self.day, self.burst_today_by_workload = day, {}
        _increase(self.by_pool, pool, usd)
        total = sum(tokens.values())
        if total:
            shares = {workload: count / total for workload, count in tokens.items()}
        else:
            shares = {workload: 1 / len(bursting) for workload in bursting}
        for workload, share in shares.items():
            _increase(self.by_workload, workload, usd * share)
            if workload in bursting:
                _increase(self.burst_today_by_workload, workload, usd * share)

    def today(self, now_s: float) -> dict[str, float]:
        """What workloads have spent on burst pools since midnight UTC."""
        return self.burst_today_by_workload if self.day == _day(now_s) else {}


def _day(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d")


def _increase(amounts: dict[str, float], key: str, by: float) -> None:
    amounts[key] = amounts.get(key, 0.0) + by
