"""Somebody's word on a workload's burst, over its triggers."""

from enum import StrEnum

from orchestrator.policy.snapshot import Frozen


class OverrideKind(StrEnum):
    HOLD = "hold"
    """As it is: no burst starts, and one that is under way is not ended by calm."""
    FORCE = "force"
    """A burst, whatever the triggers say. Prices, budgets and limits of pools hold all the same."""
    RELEASE = "release"
    """A burst that is under way ends; then the triggers have their say again."""


class Override(Frozen):
    kind: OverrideKind
    pool: str | None = None
    """Of a forced burst; None: the best."""
    until_s: float | None = None
    """Seconds since the epoch; None: until somebody ends it."""

    def holds(self, now_s: float) -> bool:
        return self.until_s is None or now_s < self.until_s
