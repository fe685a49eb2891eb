"""Scale-ups that do not come: when one is given up, and when it is tried again."""

from dataclasses import dataclass

from orchestrator.policy.snapshot import Frozen

SETTLE_S = 10
"""What a cluster said of an order before this one is not held against it for so long."""
MIN_LIMIT_S = 30
"""No scale-up is given up earlier, however fast its pool should be."""
FIRST_PAUSE_S = 60
LONGEST_PAUSE_S = 3600
"""Pauses double from the first to the longest, and are forgotten after another longest one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the cluster says of an endpoint's replicas that do not serve yet."""

    failed: str | None = None
    """Its reason, or that of a scaling that was refused."""
    abandoned: bool = False
    """Whether it tries no more."""


class Provision(Frozen):
    """How far an endpoint is with what was ordered last. Times are seconds since the epoch."""

    lacking_since_s: float | None = None
    """Since when replicas have been missing and none has come."""
    ready: int = 0
    """How many there were then."""
    failures: int = 0
    """Scale-ups given up since the last one that came."""
    retry_at_s: float = 0
    reason: str = ""
    """Why the last one was given up."""

    def given_up(self, now_s: float) -> bool:
        return now_s < self.retry_at_s


NOTHING_ORDERED = Provision()


def follow_up(
    before: Provision,
    ordered: int,
    ready: int,
    progress: Progress,
    limit_s: float,
    now_s: float,
) -> Provision:
    """The state after this tick. `ordered`: the target that has been in force since the last one;
    `limit_s`: how long a scale-up may go without a replica more."""
    if before.given_up(now_s) and ready <= before.ready:
        return before
    if ready >= ordered:
        # What was given up ordered no more than there is: that it is there proves nothing.
        came = ordered and (not before.failures or ready > before.ready)
        forgotten = now_s - before.retry_at_s > LONGEST_PAUSE_S
        if came or forgotten:
            return NOTHING_ORDERED
        return _at(before, None, ready)
    since_s = before.lacking_since_s
    if since_s is None or ready > before.ready:
        since_s = now_s
    lacking_s = now_s - since_s
    late = lacking_s > max(limit_s, MIN_LIMIT_S)
    if late or (progress.abandoned and lacking_s >= SETTLE_S):
        why = progress.failed or f"no replica more has come in {lacking_s:.0f} s"
        pause_s = min(FIRST_PAUSE_S * 2.0**before.failures, LONGEST_PAUSE_S)
        return Provision(
            ready=ready, failures=before.failures + 1, retry_at_s=now_s + pause_s, reason=why
        )
    return _at(before, since_s, ready)


def _at(before: Provision, lacking_since_s: float | None, ready: int) -> Provision:
    if (before.lacking_since_s, before.ready) == (lacking_since_s, ready):
        return before
    return before.model_copy(update={"lacking_since_s": lacking_since_s, "ready": ready})
