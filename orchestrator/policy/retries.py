"""How many attempts there may be beyond the first of each request.

Without a bound, an outage would be met with several times the load. The budget is earned by
requests, as in Finagle's RetryBudget, and by time, so that few requests can be retried too.
"""

PER_S = 1.0
CAPACITY = 20.0


class RetryBudget:
    def __init__(self) -> None:
        self._balance = CAPACITY
        self._at_s = 0.0

    def request(self, share: float, now_s: float) -> None:
        """A request earns its share of an attempt. `share` is the policy's `retry_budget`."""
        earned = share + max(now_s - self._at_s, 0.0) * PER_S
        self._at_s = now_s
        self._balance = min(self._balance + earned, CAPACITY)

    def spend(self) -> bool:
        """False when nothing is left: then there is no other attempt."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def give_back(self) -> None:
        """What was spent on an attempt that was not made."""
        self._balance = min(self._balance + 1.0, CAPACITY)
