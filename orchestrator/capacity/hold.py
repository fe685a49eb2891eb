"""Capacity that is not needed any more is kept for a while: it may be wanted again.

For as long as a replica takes to come: then keeping it has cost what fetching it anew would, and
no schedule that knows the future costs less than half of it (the ski rental problem).
"""

from orchestrator.policy.snapshot import Frozen


class Excess(Frozen):
    """An endpoint has more than it needs."""

    since_s: float
    """Seconds since the epoch."""
    most: int
    """Replicas that were needed since."""


def kept(
    held: int, needed: int, excess: Excess | None, keep_s: float, now_s: float
) -> tuple[int, Excess | None]:
    """The target, and what to remember."""
    if needed >= held:
        return needed, None
    if excess is None:
        return held, Excess(since_s=now_s, most=needed)
    most = max(excess.most, needed)
    if now_s - excess.since_s < keep_s:
        return held, excess if most == excess.most else Excess(since_s=excess.since_s, most=most)
    return most, None
